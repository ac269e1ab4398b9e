//! Holds: counting what a request consumes, and what that costs.
//!
//! What the model server counted is billed. What it did not count is counted here, by one rule, which docs/money.md
//! states. Either way nothing beyond what was held for is ever counted.

use batchin_domain::{Amount, Counts, Measure, Tariff};
use batchin_openai::{InputBound, Usage};
use batchin_store::UsageMarks;
use batchin_upstream::Kind;

use crate::admit::{Admitted, tokens_of_text};

/// No vocabulary that is in use has a longer token.
const LONGEST_TOKEN: u64 = 256;
/// Pieces that are larger on average have several tokens in them. Whole words of some languages are single tokens of more
/// than eight bytes; a server that joins tokens joins many.
const PIECE_TOKEN: u64 = 16;
/// More than tokens have on average in any language or code.
const LARGE_TOKEN: u64 = 8;
/// What a short answer may have beyond that: a few long words.
const SPARE_BYTES: u64 = 64;

/// The most bytes of text that a prompt is.
const fn echo_bytes(bound: &InputBound) -> u64 {
    bound.text_bytes.saturating_add(bound.token_ids.saturating_mul(LONGEST_TOKEN))
}

/// The same with each part of a whole as large as the whole.
fn with_any_parts(most: Counts) -> Counts {
    let parts = Measure::ALL.into_iter().filter_map(|part| Some((part, part.part_of()?)));
    parts.fold(most, |bound, (part, whole)| bound.with(part, most.of(whole)))
}

/// What came of an answer: its pieces, and the bytes of text in them.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    pieces: u64,
    bytes: u64,
}

impl Said {
    /// The pieces of a server that sends a token in each, and the text of any other. Pieces that are too large for that
    /// have several tokens in them; pieces without any text that can be read (audio) are all there is to count.
    fn tokens(self, token_by_token: bool) -> u64 {
        let are_tokens = token_by_token && self.bytes <= self.pieces.saturating_mul(PIECE_TOKEN);
        if are_tokens || self.bytes == 0 { self.pieces } else { tokens_of_text(self.bytes) }
    }
}

/// What is said in a sound has at most so many bytes of text a millisecond, many times what anybody says, and so many more.
const SAID_BYTES_PER_MS: u64 = 1;
const SPARE_SAID_BYTES: u64 = 64 * 1024;

/// One request's counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    tariff: Tariff,
    /// At most this is charged.
    hold: Amount,
    /// What was held for: each part of a whole may be all of it.
    bound: Counts,
    /// Answers that share the output's bound.
    answers: u64,
    /// Our count of the prompt, for when the upstream says nothing.
    guessed_input: u64,
    /// The most bytes of the prompt that may stand before the answers: no sign that a server goes beyond its limit.
    echoed: u64,
    /// What was made, and was counted here.
    made: Counts,
    /// Whether text is told that does not cost by its tokens.
    hears: bool,
    said: Said,
    /// Of that, what came since the upstream last told its count.
    uncounted: Said,
    told: Option<Usage>,
    /// What it told last: that is what stands in the answer.
    last: Option<Usage>,
    token_by_token: bool,
    is_cut: bool,
}

impl Meter {
    /// A meter for a request, charged at most `hold`.
    pub fn new(admitted: &Admitted, hold: Amount) -> Self {
        let (peek, ceiling) = (&admitted.peek, &admitted.ceiling);
        let bound = &peek.bound;
        Self {
            tariff: ceiling.tariff,
            hold,
            bound: with_any_parts(ceiling.most),
            answers: ceiling.answers,
            guessed_input: admitted.prompt_guess,
            echoed: if peek.echo { echo_bytes(bound).saturating_mul(u64::from(peek.choices.max(1))) } else { 0 },
            // However much of them is told.
            made: Counts::NONE
                .with(Measure::Searches, bound.made.of(Measure::Searches))
                .with(Measure::AudioMs, admitted.sound.as_ref().map_or(0, |sound| sound.ms)),
            hears: admitted.sound.is_some(),
            said: Said::default(),
            uncounted: Said::default(),
            told: None,
            last: None,
            token_by_token: false,
            is_cut: false,
        }
    }

    /// So much of something was made.
    pub fn made(&mut self, measure: Measure, count: u64) {
        self.made = self.made.with(measure, count);
    }

    /// So much of everything was made.
    pub fn made_all(&mut self, counts: Counts) {
        self.made = Measure::made().fold(self.made, |made, measure| made.with(measure, counts.of(measure)));
    }

    /// Such a server answers.
    pub fn comes_from(&mut self, kind: Kind) {
        if !kind.echoes {
            self.echoed = 0;
        }
    }

    /// The answer is a stream of such a server.
    pub fn streams_from(&mut self, kind: Kind) {
        self.comes_from(kind);
        self.token_by_token = kind.streams_token_by_token;
    }

    /// Pieces came, with so many bytes of text in all.
    pub fn said(&mut self, pieces: u32, bytes: u64) {
        for said in [&mut self.said, &mut self.uncounted] {
            said.pieces = said.pieces.saturating_add(u64::from(pieces));
            said.bytes = said.bytes.saturating_add(bytes);
        }
    }

    /// The upstream says what it counted, so far or in all. Counts grow, and what it does not tell undoes nothing.
    pub fn report(&mut self, usage: Usage) {
        if usage.counts_completion() {
            self.uncounted = Said::default();
        }
        self.told = Some(self.told.map_or(usage, |known| known.merged(usage)));
        self.last = Some(usage);
    }

    /// The upstream tells counts that cannot be read, or zeros.
    pub const fn reports_nothing(&mut self) {
        self.last = None;
    }

    /// The answer is cut off here.
    pub const fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether more has come than was asked for: by the upstream's own count or, without one, by more text than so many
    /// tokens can have.
    ///
    /// No honest answer does. One whose pieces are whole tokens has no more pieces than tokens, and no token is longer than
    /// [`LONGEST_TOKEN`]. Only an answer in pieces smaller than tokens is judged by [`LARGE_TOKEN`], twice what tokens have.
    pub fn is_over(&self) -> bool {
        if self.hears {
            let most = self.bound.of(Measure::AudioMs).saturating_mul(SAID_BYTES_PER_MS);
            return self.said.bytes > most.saturating_add(SPARE_SAID_BYTES);
        }
        let most = self.bound.of(Measure::CompletionTokens);
        let counted = self.told.and_then(|usage| usage.completion_tokens).unwrap_or(0);
        let in_small_pieces = self.said.pieces > most.saturating_add(self.answers);
        let each = if in_small_pieces { LARGE_TOKEN } else { LONGEST_TOKEN };
        let spare = self.answers.saturating_mul(SPARE_BYTES).saturating_add(self.echoed);
        counted > most || self.said.bytes > most.saturating_mul(each).saturating_add(spare)
    }

    /// Whether a count is ours.
    pub fn is_estimated(&self) -> bool {
        if self.bound.tokens() == 0 {
            return false;
        }
        let told = self.told.unwrap_or_default();
        told.prompt_tokens.is_none() || told.completion_tokens.is_none() || self.uncounted.pieces > 0
    }

    /// What is odd about the counts.
    pub fn marks(&self) -> UsageMarks {
        // That the prompt comes back is nothing odd.
        let counted = self.counted(self.echoed);
        let told = self.told.and_then(|usage| usage.completion_tokens).filter(|_| !self.hears);
        let in_it = self.said.pieces.saturating_sub(self.uncounted.pieces);
        UsageMarks {
            capped: counted.is_over(self.bound),
            below_pieces: told.is_some_and(|count| count < in_it),
            cut: self.is_cut,
        }
    }

    /// What was consumed so far, at most what was held for.
    pub fn counts(&self) -> Counts {
        self.counted(0).at_most(self.bound)
    }

    /// The usage, where it differs from what the upstream said last in anything that has a price: the client is told what
    /// it pays for.
    pub fn corrected(&self) -> Option<Usage> {
        let (usage, last) = (self.usage(), self.last.unwrap_or_default());
        let as_told = Usage { reasoning_tokens: usage.reasoning_tokens, ..last } == usage;
        (!as_told).then_some(usage)
    }

    /// The usage as it is billed.
    pub fn usage(&self) -> Usage {
        let counts = self.counts();
        let completion = counts.of(Measure::CompletionTokens);
        let reasoning = self.told.map_or(0, |usage| usage.reasoning_tokens);
        Usage {
            cached_tokens: counts.of(Measure::CachedTokens),
            cache_write_tokens: counts.of(Measure::CacheWriteTokens),
            reasoning_tokens: reasoning.min(completion),
            ..Usage::of(counts.of(Measure::PromptTokens), completion)
        }
    }

    /// What it costs so far.
    pub fn cost(&self) -> Amount {
        self.tariff.cost(self.counts()).min(self.hold)
    }

    /// The counts, without so many bytes that may be the prompt's echo. Nobody knows which text is: what is billed has all
    /// of it, as a server that ignores `echo` would work for nothing otherwise.
    fn counted(&self, echoed: u64) -> Counts {
        if self.hears {
            return self.made;
        }
        let told = self.told.unwrap_or_default();
        // It stands at the beginning, before any count that came on the way.
        let echoed = if told.completion_tokens.unwrap_or(0) > 0 { 0 } else { echoed };
        let said = Said { bytes: self.uncounted.bytes.saturating_sub(echoed), ..self.uncounted };
        let is_echo = said.bytes == 0 && self.uncounted.bytes > 0;
        let guessed = if is_echo { 0 } else { said.tokens(self.token_by_token) };
        let prompt = told.prompt_tokens.unwrap_or(self.guessed_input);
        let completion = told.completion_tokens.unwrap_or(0).saturating_add(guessed);
        Counts::of_tokens(prompt, completion)
            .with(Measure::CachedTokens, told.cached_tokens)
            .with(Measure::CacheWriteTokens, told.cache_write_tokens)
            .plus(self.made)
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::Rate;

    use super::*;

    fn meter() -> Meter {
        let rate = Rate::from_pico(1_000);
        Meter {
            tariff: Tariff::of_tokens(rate, rate),
            hold: Amount::from_nanos(1_000).unwrap(),
            bound: with_any_parts(Counts::of_tokens(50, 20)),
            answers: 1,
            guessed_input: 10,
            echoed: 0,
            made: Counts::NONE,
            hears: false,
            said: Said::default(),
            uncounted: Said::default(),
            told: None,
            last: None,
            token_by_token: false,
            is_cut: false,
        }
    }

    #[test]
    fn without_usage_the_text_is_counted_however_it_comes() {
        let (mut pieces, mut whole) = (meter(), meter());
        (0..44).for_each(|_| pieces.said(1, 1));
        whole.said(1, 44);
        for meter in [pieces, whole] {
            assert_eq!(meter.counts(), Counts::of_tokens(10, 11));
            assert!(meter.is_estimated());
            assert_eq!(meter.cost().nanos(), 21);
            assert_eq!(meter.corrected(), Some(Usage::of(10, 11)));
        }
        let mut silent = meter();
        silent.said(3, 0);
        assert_eq!(silent.counts(), Counts::of_tokens(10, 3), "audio");
    }

    #[test]
    fn pieces_that_are_tokens_are_counted_as_such() {
        let check = |bytes: u64, expected: u64| {
            let mut meter = meter();
            meter.streams_from(Kind::VLLM);
            (0..4).for_each(|_| meter.said(1, bytes));
            assert_eq!(meter.counts(), Counts::of_tokens(10, expected), "four pieces of {bytes} bytes");
        };
        check(1, 4);
        check(8, 4);
        check(10, 4);
        check(16, 4);
        // Several tokens in a piece.
        check(17, 17);
    }

    #[test]
    fn an_echo_is_nothing_odd_and_nothing_free() {
        let asking = Meter { echoed: 1_000 * LONGEST_TOKEN, bound: Counts::of_tokens(1_000, 1), ..meter() };
        for kind in [Kind::OPENAI, Kind::VLLM, Kind::OLLAMA] {
            let mut honest = asking;
            honest.streams_from(kind);
            honest.said(1, 4_000);
            let is_odd = kind == Kind::OLLAMA;
            assert_eq!((honest.is_over(), honest.marks().capped), (is_odd, is_odd), "{kind}");
            assert_eq!(honest.counts().of(Measure::CompletionTokens), 1, "{kind}");
        }
        let mut ignoring = Meter { echoed: 8_000, ..meter() };
        ignoring.comes_from(Kind::OPENAI);
        ignoring.said(1, 40);
        assert_eq!(ignoring.counts(), Counts::of_tokens(10, 10));
        // What follows a count on the way is no echo.
        ignoring.report(Usage::of(12, 5));
        ignoring.said(1, 400);
        assert_eq!((ignoring.counts(), ignoring.marks().capped), (Counts::of_tokens(12, 20), true));
    }

    #[test]
    fn what_the_upstream_counted_is_billed_and_what_it_does_not_tell_is_kept() {
        let mut meter = meter();
        (0..19).for_each(|_| meter.said(1, 1));
        meter.report(Usage::of(12, 6));
        assert_eq!((meter.counts(), meter.is_estimated(), meter.corrected()), (Counts::of_tokens(12, 6), false, None));
        // What it tells the client then is not what it is billed by.
        meter.report(Usage { completion_tokens: Some(2), ..Usage::default() });
        assert_eq!((meter.counts(), meter.is_estimated()), (Counts::of_tokens(12, 6), false));
        assert_eq!(meter.corrected(), Some(Usage::of(12, 6)));
        meter.report(Usage::of(12, 6));
        assert_eq!(meter.corrected(), None);
        meter.reports_nothing();
        assert_eq!((meter.counts(), meter.corrected()), (Counts::of_tokens(12, 6), Some(Usage::of(12, 6))));
        assert_eq!(meter.marks(), UsageMarks { below_pieces: true, ..UsageMarks::default() });
    }

    #[test]
    fn what_comes_after_the_last_count_is_added_to_it() {
        let mut meter = meter();
        meter.said(1, 4);
        meter.report(Usage::of(12, 1));
        meter.said(1, 9);
        assert_eq!((meter.counts(), meter.is_estimated()), (Counts::of_tokens(12, 4), true));
        meter.report(Usage::of(12, 2));
        assert_eq!((meter.counts(), meter.is_estimated()), (Counts::of_tokens(12, 2), false));
        assert_eq!(meter.marks(), UsageMarks::default());
        // Zeros all along say nothing.
        meter.said(1, 4);
        meter.report(Usage { prompt_tokens: Some(12), completion_tokens: Some(0), ..Usage::default() });
        assert_eq!(meter.counts(), Counts::of_tokens(12, 3));
    }

    #[test]
    fn nothing_is_counted_beyond_what_was_held_for() {
        for count in [51, 1 << 40, u64::MAX] {
            let mut meter = meter();
            meter.report(Usage::of(count, count));
            assert_eq!((meter.counts(), meter.cost().nanos()), (Counts::of_tokens(50, 20), 70));
            assert!(meter.marks().capped);
            assert_eq!(meter.corrected(), Some(Usage::of(50, 20)));
        }
        let mut long = meter();
        long.said(1, 8_000);
        assert_eq!((long.counts(), long.marks().capped), (Counts::of_tokens(10, 20), true));
    }

    /// A prompt of 40 tokens and an answer of 3, of which the server says so much of its cache; what is billed.
    fn with_cache(cached_tokens: u64, cache_write_tokens: u64) -> (Meter, Usage) {
        let rate = Rate::from_pico;
        let tariff = Tariff::of_tokens(rate(1_000), rate(10_000))
            .with(Measure::CachedTokens, rate(100))
            .with(Measure::CacheWriteTokens, rate(2_000));
        let mut meter = Meter { tariff, ..meter() };
        let told = Usage { cached_tokens, cache_write_tokens, ..Usage::of(40, 3) };
        meter.report(told);
        (meter, told)
    }

    #[test]
    fn what_a_cache_had_and_got_is_charged_at_its_own_price() {
        for (cached, written, nanos) in [(0, 0, 70), (30, 0, 43), (0, 40, 110), (20, 10, 62), (40, 0, 34)] {
            let (meter, told) = with_cache(cached, written);
            assert_eq!((meter.cost().nanos(), meter.usage(), meter.corrected()), (nanos, told, None), "{told:?}");
            assert_eq!(meter.marks(), UsageMarks::default());
        }
    }

    #[test]
    fn of_a_cache_no_more_is_charged_than_the_prompt_has() {
        for (cached, written, billed, nanos) in [
            (41, 0, (40, 0), 34),
            (30, 30, (30, 10), 53),
            (u64::MAX, u64::MAX, (40, 0), 34),
            (0, u64::MAX, (0, 40), 110),
        ] {
            let (meter, told) = with_cache(cached, written);
            let expected = Usage { cached_tokens: billed.0, cache_write_tokens: billed.1, ..told };
            assert_eq!((meter.cost().nanos(), meter.corrected()), (nanos, Some(expected)), "{told:?}");
        }
        // Of a prompt that only we have counted, too.
        let mut unknown = meter();
        unknown.report(Usage { cached_tokens: 30, completion_tokens: Some(3), ..Usage::default() });
        assert_eq!(unknown.counts(), Counts::of_tokens(10, 3).with(Measure::CachedTokens, 10));
        // And of one that is larger than what was held for.
        let (mut large, _) = with_cache(0, 0);
        large.report(Usage { cached_tokens: 45, cache_write_tokens: 100, ..Usage::of(200, 3) });
        let counts = Counts::of_tokens(50, 3).with(Measure::CachedTokens, 45).with(Measure::CacheWriteTokens, 5);
        assert_eq!((large.counts(), large.marks().capped), (counts, true));
    }

    #[test]
    fn a_client_is_told_of_the_cache_what_it_pays_for() {
        let (mut meter, told) = with_cache(20, 10);
        // A last count without details undoes nothing.
        meter.report(Usage::of(40, 3));
        assert_eq!(meter.corrected(), Some(told));
    }

    #[track_caller]
    fn check_over(pieces: u32, bytes: u64, told: Option<u64>, expected: bool) {
        let mut meter = meter();
        (0..pieces).for_each(|_| meter.said(1, bytes));
        if let Some(count) = told {
            meter.report(Usage { completion_tokens: Some(count), ..Usage::default() });
        }
        assert_eq!(meter.is_over(), expected, "{pieces} pieces of {bytes} bytes, {told:?}");
    }

    #[test]
    fn only_what_cannot_be_so_few_tokens_is_over() {
        // Twenty tokens, whatever they are.
        check_over(20, 128, None, false);
        check_over(1, 20 * 128, None, false);
        // The same text by the letter.
        check_over(90, 1, None, false);
        check_over(200, 1, None, false);
        // One token a piece, and it does not stop.
        check_over(60, 5, None, true);
        check_over(400, 1, None, true);
        // Large pieces, and it does not stop.
        check_over(6, 1_000, None, true);
        // It says so itself.
        check_over(5, 5, Some(20), false);
        check_over(5, 5, Some(21), true);
    }
}
