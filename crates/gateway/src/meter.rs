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

    /// The upstream says what it counted. Counts grow, and what it does not tell undoes nothing.
    pub fn report(&mut self, usage: Usage) {
        self.reported = Some(self.reported.map_or(usage, |known| known.merged(usage)));
    }

    /// Whether a count is ours.
    pub fn is_estimated(&self) -> bool {
        let told = self.reported.unwrap_or_default();
        told.prompt_tokens.is_none() || told.completion_tokens.is_none_or(|count| count < self.deltas)
    }

    /// What was consumed so far.
    pub fn units(&self) -> Units {
        let told = self.reported.unwrap_or_default();
        Units {
            input: told.prompt_tokens.unwrap_or(self.guessed_input),
            output: told.completion_tokens.unwrap_or(0).max(self.deltas),
            cached: told.cached_tokens,
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
    fn what_the_upstream_counted_wins_and_what_it_does_not_tell_is_kept() {
        let mut meter = meter(1_000);
        meter.deltas(5);
        meter.report(Usage::of(12, 6));
        meter.report(Usage { completion_tokens: Some(2), ..Usage::default() });
        assert_eq!(meter.units(), Units { input: 12, output: 6, cached: 0 });
        assert!(!meter.is_estimated());
    }

    #[test]
    fn nothing_is_charged_beyond_the_hold() {
        let mut meter = meter(15);
        meter.report(Usage::of(12, 6));
        assert_eq!(meter.cost().nanos(), 15);
    }
}
