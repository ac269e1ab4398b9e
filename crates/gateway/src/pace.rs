//! Holds: the time between tokens, worked out from when the pieces of a stream arrive.
//!
//! Pieces that lie in one read came in one burst; the time since the burst before is shared by its tokens. A stream of
//! several choices brings one piece for each of them in every step of the engine.

use std::time::Duration;

use tokio::time::Instant;

/// Pieces that were here already when their reader came for them, this long after the last, waited for the reader.
const HELD_UP: Duration = Duration::from_millis(2);

/// The pace of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Choices that go on: so many pieces make one step.
    choices: u32,
    /// Of those, the ones that end with this burst.
    ending: u32,
    burst: Option<Burst>,
    /// When the burst before arrived, if that is known.
    before: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    last: Instant,
    deltas: u32,
    /// The reader was late, so nobody knows when these pieces arrived.
    held_up: bool,
}

/// What one burst showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Since the burst before; `None` where that says nothing about the engine.
    pub gap: Option<Duration>,
    /// Tokens of one choice in it.
    pub tokens: u32,
}

impl Pace {
    /// The pace of a stream of so many choices.
    pub fn new(choices: u32) -> Self {
        Self { choices: choices.max(1), ending: 0, burst: None, before: None }
    }

    /// A piece with content of `deltas` choices is here; `ends` when a choice ends with it.
    pub fn piece(&mut self, deltas: u32, ends: bool, now: Instant) {
        if deltas > 0 {
            let burst = self.burst.get_or_insert(Burst { began: now, last: now, deltas: 0, held_up: false });
            burst.held_up |= now.duration_since(burst.last) > HELD_UP;
            burst.last = now;
            burst.deltas = burst.deltas.saturating_add(deltas);
        }
        self.ending = self.ending.saturating_add(u32::from(ends));
    }

    /// All that has arrived is read, and the reader waits for more: the burst is over.
    pub fn waits(&mut self) -> Option<Step> {
        let width = self.choices;
        self.choices = width.saturating_sub(std::mem::take(&mut self.ending)).max(1);
        let burst = self.burst.take()?;
        let known = !burst.held_up;
        let before = std::mem::replace(&mut self.before, known.then_some(burst.began));
        let gap = before.filter(|_| known).map(|before| burst.began.duration_since(before));
        Some(Step { gap, tokens: burst.deltas.div_ceil(width) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a stream, given as the milliseconds, content and end of each piece, and `None` for each wait.
    fn steps(choices: u32, pieces: &[Option<(u64, u32, bool)>]) -> Vec<(Option<u64>, u32)> {
        let (begin, mut pace) = (Instant::now(), Pace::new(choices));
        let mut steps = Vec::new();
        for piece in pieces {
            match piece {
                Some((ms, deltas, ends)) => pace.piece(*deltas, *ends, begin + Duration::from_millis(*ms)),
                None => steps.extend(pace.waits()),
            }
        }
        let millis = |gap: Duration| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        steps.into_iter().map(|step| (step.gap.map(millis), step.tokens)).collect()
    }

    #[test]
    fn bursts_share_their_gap_and_empty_pieces_do_not_count() {
        let one = |ms| Some((ms, 1, false));
        let pieces = [Some((0, 0, false)), None, one(10), None, one(30), None, one(70), one(70), None, None];
        assert_eq!(steps(1, &pieces), [(None, 1), (Some(20), 1), (Some(40), 2)]);
    }

    #[test]
    fn choices_of_one_step_are_one_token_until_they_end() {
        let of = |ms, ends| Some((ms, 1, ends));
        let pieces = [of(0, false), of(0, false), None, of(20, false), of(20, true), None, of(40, false), None];
        assert_eq!(steps(2, &pieces), [(None, 1), (Some(20), 1), (Some(20), 1)]);
    }

    #[test]
    fn a_late_reader_says_nothing_about_the_engine() {
        let one = |ms| Some((ms, 1, false));
        let pieces = [one(0), None, one(20), one(300), None, one(310), None, one(330), None];
        assert_eq!(steps(1, &pieces), [(None, 1), (None, 2), (None, 1), (Some(20), 1)]);
    }
}
