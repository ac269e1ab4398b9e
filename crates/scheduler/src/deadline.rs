//! Holds: when a batch of low priority must hurry to be ready in its window.

use std::time::Duration;

use batchin_domain::{Timestamp, batch::TaskCounts};

/// What is left is taken to need this much longer than what is done did, in percent: capacity comes and goes.
const MARGIN_PERCENT: u64 = 125;
/// Before half its window has passed, a batch without any ended task may still be waiting for its turn.
const SILENT_PART: u32 = 2;
/// In the last tenth of its window it hurries whatever its pace was.
const LAST_PART: u32 = 10;

/// Whether a batch that was made at `created` would miss its window at the pace that it had so far.
pub fn must_hurry(created: Timestamp, expires: Timestamp, counts: TaskCounts, now: Timestamp) -> bool {
    let (window, elapsed, left) = (expires.since(created), now.since(created), expires.since(now));
    if counts.total > 0 && counts.left() == 0 {
        return false;
    }
    if left <= window / LAST_PART {
        return true;
    }
    if counts.ended() == 0 {
        return elapsed >= window / SILENT_PART;
    }
    needed(elapsed, counts) >= left
}

/// How long what is left will take.
fn needed(elapsed: Duration, counts: TaskCounts) -> Duration {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let all = u128::from(micros) * u128::from(counts.left()) * u128::from(MARGIN_PERCENT);
    let micros = all / u128::from(counts.ended().max(1)) / 100;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hurries(hours: u64, total: u32, completed: u32) -> bool {
        let created = Timestamp::from_micros(0);
        let at = |hours: u64| created.after(Duration::from_secs(hours * 3_600));
        let counts = TaskCounts { total, completed, ..TaskCounts::default() };
        must_hurry(created, at(20), counts, at(hours))
    }

    #[test]
    fn a_batch_hurries_when_its_pace_does_not_suffice() {
        // A tenth an hour: ready in ten of twenty hours.
        assert!(!hurries(5, 100, 50));
        // Two in a hundred an hour: fifty hours.
        assert!(hurries(5, 100, 10));
        // On pace for exactly twenty hours leaves no margin.
        assert!(hurries(10, 100, 50));
        assert!(!hurries(10, 100, 60));
    }

    #[test]
    fn silence_and_the_end_of_the_window_make_it_hurry() {
        assert!(!hurries(9, 100, 0));
        assert!(hurries(10, 100, 0));
        assert!(hurries(18, 100, 99));
        assert!(!hurries(18, 100, 100));
        // Its file has not been read yet.
        assert!(hurries(19, 0, 0));
    }
}
