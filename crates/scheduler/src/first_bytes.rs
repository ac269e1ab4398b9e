//! Holds: how long requests of a replica lately waited for their first byte.

use std::time::Duration;

/// Assumed until one has been seen: an engine of middling speed with a prompt of some thousand tokens.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Two steps of a fast engine; less would be noise.
const SHORTEST: Duration = Duration::from_millis(50);
/// Who waits longer than this is behind a queue that batch work did not make and cannot shorten by waiting.
const LONGEST: Duration = Duration::from_secs(5);

/// Mean and mean deviation, both smoothed as TCP does for its retransmission timer (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstBytes {
    /// Microseconds.
    smoothed: Option<(u64, u64)>,
}

impl FirstBytes {
    pub fn record(&mut self, waited: Duration) {
        // Beyond the bound only the fact counts, and one long wait is soon forgotten.
        let waited = micros(waited.min(LONGEST));
        self.smoothed = Some(match self.smoothed {
            None => (waited, waited / 2),
            Some((mean, deviation)) => {
                let deviation = (deviation * 3 + mean.abs_diff(waited)) / 4;
                ((mean * 7 + waited) / 8, deviation)
            }
        });
    }

    /// After this long nearly every request has had its first byte.
    pub fn nearly_all(&self) -> Duration {
        let expected = self.smoothed.map_or(UNKNOWN, |(mean, deviation)| Duration::from_micros(mean + 4 * deviation));
        expected.clamp(SHORTEST, LONGEST)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_seen_and_stays_within_its_bounds() {
        let after = |waits: &[(u64, usize)]| {
            let mut seen = FirstBytes::default();
            for (ms, times) in waits {
                (0..*times).for_each(|_| seen.record(Duration::from_millis(*ms)));
            }
            seen.nearly_all()
        };
        assert_eq!(after(&[]), UNKNOWN);
        assert_eq!(after(&[(400, 1)]), Duration::from_millis(1_200));
        let steady = after(&[(400, 40)]);
        assert!((400..410).contains(&steady.as_millis()), "{steady:?}");
        assert_eq!(after(&[(1, 40)]), SHORTEST);
        assert_eq!(after(&[(3_600_000, 3)]), LONGEST);
        assert!(after(&[(3_600_000, 3), (400, 80)]) < Duration::from_millis(600), "a bad minute is forgotten");
    }
}
