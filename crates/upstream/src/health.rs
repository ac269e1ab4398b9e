//! Holds: asking servers whether they live, beside the calls.
//!
//! The breaker learns from calls; this learns of a server that nobody calls, and of one that came back.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::timeout;

/// Between two rounds.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How long a server may take to answer. A busy one answers slowly, so this is most of the interval.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Misses in a row before a server that was well counts as ill.
const MISSES_TO_FALL_ILL: u32 = 2;

/// What the last probes said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not probed yet.
    Unknown,
    /// It answered.
    Well,
    /// It did not.
    Ill,
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// It answered.
    Answered,
    /// It did not, or said itself that it is ill.
    Silent,
    /// It answered that it does not take our key.
    KeyRefused,
}

/// The memory of a replica's probes.
#[derive(Debug)]
pub(crate) struct Pulse {
    health: AtomicU8,
    misses: AtomicU32,
    was_well: AtomicBool,
    key_refused: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            health: AtomicU8::new(Health::Unknown as u8),
            misses: AtomicU32::new(0),
            was_well: AtomicBool::new(false),
            key_refused: AtomicBool::new(false),
        }
    }

    /// Whether the last probe found that our key is refused.
    pub(crate) fn is_key_refused(&self) -> bool {
        self.key_refused.load(Ordering::Relaxed)
    }

    /// Whether it was ever well.
    pub(crate) fn was_well(&self) -> bool {
        self.was_well.load(Ordering::Relaxed)
    }

    pub(crate) fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            1 => Health::Well,
            2 => Health::Ill,
            _ => Health::Unknown,
        }
    }

    /// Takes in one probe. Returns the new health when it changed.
    pub(crate) fn note(&self, probed: Probed) -> Option<Health> {
        let before = self.health();
        let after = match probed {
            Probed::Answered => {
                self.misses.store(0, Ordering::Relaxed);
                self.was_well.store(true, Ordering::Relaxed);
                Health::Well
            }
            Probed::Silent => {
                let misses = self.misses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if before == Health::Well && misses < MISSES_TO_FALL_ILL { Health::Well } else { Health::Ill }
            }
            // That is an answer, and no chance.
            Probed::KeyRefused => Health::Ill,
        };
        self.key_refused.store(probed == Probed::KeyRefused, Ordering::Relaxed);
        self.health.store(after as u8, Ordering::Relaxed);
        (after != before).then_some(after)
    }
}

/// What `asked` finds in time.
pub(crate) async fn within(asked: impl Future<Output = Option<Probed>>) -> Probed {
    timeout(PROBE_TIMEOUT, asked).await.ok().flatten().unwrap_or(Probed::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_miss_of_a_well_server_is_forgiven() {
        let pulse = Pulse::new();
        assert_eq!(pulse.health(), Health::Unknown);
        assert_eq!(pulse.note(Probed::Answered), Some(Health::Well));
        assert_eq!(pulse.note(Probed::Silent), None);
        assert_eq!(pulse.note(Probed::Answered), None);
        assert_eq!(pulse.note(Probed::Silent), None);
        assert_eq!(pulse.note(Probed::Silent), Some(Health::Ill));
        assert_eq!(pulse.note(Probed::Answered), Some(Health::Well));
    }

    #[test]
    fn a_refused_key_is_believed_at_once() {
        let pulse = Pulse::new();
        assert_eq!(pulse.note(Probed::Answered), Some(Health::Well));
        assert_eq!(pulse.note(Probed::KeyRefused), Some(Health::Ill));
        assert!(pulse.was_well());
    }

    #[test]
    fn unknown_server_that_misses_is_ill_at_once() {
        assert_eq!(Pulse::new().note(Probed::Silent), Some(Health::Ill));
    }
}
