//! Holds: when a delivery is tried again.

use std::time::Duration;

use crate::{Timestamp, webhook::FailureKind};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The pause before each try, counted from the one before: some three days in all, as Standard Webhooks advises.
const PAUSES: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(5 * MINUTE),
    Duration::from_secs(30 * MINUTE),
    Duration::from_secs(2 * HOUR),
    Duration::from_secs(5 * HOUR),
    Duration::from_secs(10 * HOUR),
    Duration::from_secs(14 * HOUR),
    Duration::from_secs(20 * HOUR),
    Duration::from_secs(24 * HOUR),
];
/// How often a delivery is tried before it fails.
pub const MAX_TRIES: u32 = 10;
const _: () = assert!(PAUSES.len() == MAX_TRIES as usize);

/// A receiver may ask for no shorter pause than the shortest of ours, and for no longer one than the longest.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(24 * HOUR);
/// A pause is longer by up to a tenth, so that what failed together does not come back together.
const JITTER_PART: u32 = 10;

const GONE: u16 = 410;

/// What one try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryResult {
    /// The receiver's status, if it gave one.
    pub status: Option<u16>,
    /// What went wrong beside the status.
    pub failure: Option<FailureKind>,
    /// When the receiver wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it.
    Delivered,
    /// The receiver wants no more.
    Off,
    /// It is tried again then.
    RetryAt(Timestamp),
    /// It has been tried often enough.
    Failed,
}

/// Decides after a try. `tried` counts the tries before this one; `jitter` is any random number.
pub fn after_try(result: &TryResult, tried: u32, now: Timestamp, jitter: u16) -> Next {
    match (result.failure, result.status) {
        (None, Some(200..=299)) => return Next::Delivered,
        (None, Some(GONE)) => return Next::Off,
        // A mail server's word is final, where a web server's may be a fault that somebody repairs.
        (Some(FailureKind::MailRefused), _) => return Next::Failed,
        _ => {}
    }
    let following = usize::try_from(tried).unwrap_or(usize::MAX).saturating_add(1);
    let Some(planned) = PAUSES.get(following).copied() else { return Next::Failed };
    let pause = result.retry_after.map_or(planned, |asked| asked.clamp(SHORTEST, LONGEST));
    let more = pause / JITTER_PART * u32::from(jitter) / u32::from(u16::MAX);
    Next::RetryAt(now.after(pause.saturating_add(more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn status(status: u16) -> TryResult {
        TryResult { status: Some(status), failure: None, retry_after: None }
    }

    fn pause(result: &TryResult, tried: u32, jitter: u16) -> Duration {
        match after_try(result, tried, NOW, jitter) {
            Next::RetryAt(at) => at - NOW,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_status_decides() {
        for good in [200, 201, 204, 299] {
            assert_eq!(after_try(&status(good), 0, NOW, 0), Next::Delivered, "{good}");
        }
        assert_eq!(after_try(&status(410), 3, NOW, 0), Next::Off);
        for bad in [199, 301, 304, 400, 404, 429, 500, 503] {
            assert!(matches!(after_try(&status(bad), 0, NOW, 0), Next::RetryAt(_)), "{bad}");
        }
        let redirected = TryResult { failure: Some(FailureKind::Redirected), ..status(302) };
        assert!(matches!(after_try(&redirected, 0, NOW, 0), Next::RetryAt(_)));
        let by_mail = |failure| TryResult { failure: Some(failure), ..status(550) };
        assert_eq!(after_try(&by_mail(FailureKind::MailRefused), 0, NOW, 0), Next::Failed);
        assert!(matches!(after_try(&by_mail(FailureKind::MailDeferred), 0, NOW, 0), Next::RetryAt(_)));
        let silent = TryResult { status: None, failure: Some(FailureKind::TimedOut), retry_after: None };
        assert_eq!(after_try(&silent, 9, NOW, 0), Next::Failed);
    }

    #[test]
    fn pauses_grow_as_documented_and_end() {
        let pauses: Vec<_> = (0..MAX_TRIES - 1).map(|tried| pause(&status(500), tried, 0).as_secs()).collect();
        assert_eq!(pauses, [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(after_try(&status(500), MAX_TRIES - 1, NOW, 0), Next::Failed);
        assert_eq!(after_try(&status(500), u32::MAX, NOW, 0), Next::Failed);
    }

    #[test]
    fn jitter_adds_up_to_a_tenth() {
        assert_eq!(pause(&status(500), 1, u16::MAX), Duration::from_secs(330));
        let some = pause(&status(500), 1, u16::MAX / 2);
        assert!(some > Duration::from_secs(310) && some < Duration::from_secs(320), "{some:?}");
    }

    #[test]
    fn a_receiver_chooses_its_pause_within_bounds() {
        let asking = |seconds| TryResult { retry_after: Some(Duration::from_secs(seconds)), ..status(503) };
        assert_eq!(pause(&asking(0), 4, 0), SHORTEST);
        assert_eq!(pause(&asking(90), 4, 0), Duration::from_secs(90));
        assert_eq!(pause(&asking(u64::MAX), 0, 0), LONGEST);
        assert_eq!(after_try(&asking(90), MAX_TRIES - 1, NOW, 0), Next::Failed);
    }
}
