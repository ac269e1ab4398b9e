//! Holds: which results have come, and where reading goes on.
//!
//! A line is delivered once, however often the server sends it. Where lines carry `seq`, reading goes on after the
//! last one; where they do not, after the tasks that have ended without a gap.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Tasks that one batch can have at the very most; an index beyond is nonsense.
const MAX_INDEX: u64 = 16_000_000;

/// What of a result line is read.
#[derive(Debug, Deserialize)]
pub(crate) struct LineHead {
    pub index: u64,
    pub seq: Option<u64>,
    pub usage: Option<Usage>,
    pub cost_cents: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    pub prompt_tokens: u64,
    #[serde(default)]
    pub completion_tokens: u64,
}

/// The tasks whose results were delivered, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    bits: Vec<u64>,
    count: u64,
    /// The first index that is missing.
    first_gap: u64,
    has_seq: bool,
    /// Every line up to here has come.
    seq: u64,
    pass: Pass,
}

/// One reading of the results, also over several connections.
#[derive(Debug, Default)]
struct Pass {
    start: Option<u64>,
    last: Option<u64>,
    is_rising: bool,
}

impl Seen {
    /// Begins to read what is new.
    pub(crate) fn begin(&mut self) {
        let start = if self.has_seq { Some(self.seq) } else { self.first_gap.checked_sub(1) };
        self.begin_after(start);
    }

    /// Begins to read what comes after a cursor, or everything.
    pub(crate) fn begin_after(&mut self, start: Option<u64>) {
        self.pass = Pass { start, last: None, is_rising: true };
    }

    /// What the server is asked for, also after a connection broke.
    pub(crate) fn after(&self) -> Option<u64> {
        self.pass.last.filter(|_| self.pass.is_rising).or(self.pass.start)
    }

    /// Whether this line is new.
    pub(crate) fn note(&mut self, line: &LineHead) -> bool {
        if line.index > MAX_INDEX {
            return false;
        }
        let place = line.seq.unwrap_or(line.index);
        self.pass.is_rising &= self.pass.last.is_none_or(|last| last < place);
        self.pass.last = Some(place);
        if let Some(seq) = line.seq {
            self.has_seq = true;
            // Only a reading in the order of the ends leaves nothing out.
            if self.pass.is_rising && self.pass.start.is_some() {
                self.seq = self.seq.max(seq);
            }
        }
        let (word, bit) = (usize::try_from(line.index / 64).unwrap_or(0), 1_u64 << (line.index % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        let Some(bits) = self.bits.get_mut(word) else { return false };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        self.count += u64::from(is_new);
        while self.has(self.first_gap) {
            self.first_gap += 1;
        }
        is_new
    }

    /// How many tasks' results have come.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn has(&self, index: u64) -> bool {
        let word = usize::try_from(index / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(index: u64, seq: Option<u64>) -> LineHead {
        LineHead { index, seq, usage: None, cost_cents: None }
    }

    #[test]
    fn without_seq_reading_goes_on_after_what_has_no_gap() {
        let mut seen = Seen::default();
        seen.begin();
        assert_eq!(seen.after(), None);
        assert!(seen.note(&line(0, None)) && seen.note(&line(1, None)) && seen.note(&line(3, None)));
        assert_eq!(seen.after(), Some(3), "a broken connection goes on after the last line");
        seen.begin();
        assert_eq!(seen.after(), Some(1), "and the next reading after the gap");
        assert!(!seen.note(&line(3, None)) && seen.note(&line(2, None)));
        assert_eq!(seen.count(), 4);
    }

    #[test]
    fn with_seq_only_a_reading_in_the_order_of_the_ends_moves_the_cursor() {
        let mut seen = Seen::default();
        seen.begin();
        for (index, seq) in [(0, 5), (2, 3), (7, 9)] {
            assert!(seen.note(&line(index, Some(seq))));
        }
        assert_eq!(seen.after(), None, "in the order of the batch a broken connection begins again");
        seen.begin();
        assert_eq!(seen.after(), Some(0));
        assert!(!seen.note(&line(2, Some(3))) && seen.note(&line(1, Some(4))));
        assert_eq!(seen.after(), Some(4));
        seen.begin();
        assert_eq!(seen.after(), Some(4));
        assert!(!seen.note(&line(u64::MAX, Some(6))), "nonsense is not kept");
    }
}
