//! Holds: counting what a request consumes, and what that costs.

use batchin_domain::{Amount, Price, Units};
use batchin_openai::Usage;

/// Bytes of text in one token when we have to guess: the usual figure for English. A guess is marked as such and never
/// exceeds the hold.
const BYTES_PER_TOKEN: u64 = 4;

/// One request's counts.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    price: Price,
    /// At most this is charged.
    hold: Amount,
    /// Our guess of the prompt, for when the upstream says nothing.
    guessed_input: u64,
    /// Choices that got content; each holds at least one token.
    deltas: u64,
    reported: Option<Usage>,
}

impl Meter {
    /// A meter for a prompt of `text_bytes` and `token_ids`, charged at most `hold`.
    pub fn new(price: Price, hold: Amount, text_bytes: u64, token_ids: u64) -> Self {
        let guessed_input = text_bytes.div_ceil(BYTES_PER_TOKEN).saturating_add(token_ids);
        Self { price, hold, guessed_input, deltas: 0, reported: None }
    }

    /// Content went to the client.
    pub fn deltas(&mut self, deltas: u32) {
        self.deltas = self.deltas.saturating_add(u64::from(deltas));
    }

    /// The upstream says what it counted. Counts grow; zeros before the last chunk say nothing.
    pub fn report(&mut self, usage: Usage) {
        let empty = usage.prompt_tokens == 0 && usage.completion_tokens == 0;
        let larger = self.reported.is_none_or(|known| {
            usage.prompt_tokens.saturating_add(usage.completion_tokens)
                >= known.prompt_tokens.saturating_add(known.completion_tokens)
        });
        if !empty && larger {
            self.reported = Some(usage);
        }
    }

    /// Whether the counts are ours.
    pub fn is_estimated(&self) -> bool {
        self.reported.is_none_or(|usage| usage.completion_tokens < self.deltas)
    }

    /// What was consumed so far.
    pub fn units(&self) -> Units {
        match self.reported {
            Some(usage) => Units {
                input: usage.prompt_tokens,
                output: usage.completion_tokens.max(self.deltas),
                cached: usage.cached_tokens,
            },
            None => Units { input: self.guessed_input, output: self.deltas, cached: 0 },
        }
    }

    /// What it costs so far.
    pub fn cost(&self) -> Amount {
        self.price.cost(self.units()).min(self.hold)
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::Rate;

    use super::*;

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Usage {
        Usage { prompt_tokens, completion_tokens, ..Usage::default() }
    }

    fn meter(hold: i64) -> Meter {
        let rate = Rate::from_pico(1_000);
        Meter::new(Price { input: rate, output: rate }, Amount::from_nanos(hold).unwrap(), 40, 0)
    }

    #[test]
    fn without_usage_it_counts_deltas_and_guesses_the_prompt() {
        let mut meter = meter(1_000);
        (0..7).for_each(|_| meter.deltas(1));
        assert_eq!(meter.units(), Units { input: 10, output: 7, cached: 0 });
        assert!(meter.is_estimated());
        assert_eq!(meter.cost().nanos(), 17);
    }

    #[test]
    fn what_the_upstream_counted_wins_and_zeros_do_not() {
        let mut meter = meter(1_000);
        meter.deltas(5);
        meter.report(usage(12, 6));
        meter.report(usage(0, 0));
        assert_eq!(meter.units(), Units { input: 12, output: 6, cached: 0 });
        assert!(!meter.is_estimated());
    }

    #[test]
    fn nothing_is_charged_beyond_the_hold() {
        let mut meter = meter(15);
        meter.report(usage(12, 6));
        assert_eq!(meter.cost().nanos(), 15);
    }
}
