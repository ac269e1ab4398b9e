//! Holds: the order of looks at what the database says.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Numbers looks, several of which may be under way: none undoes what a later one has found.
#[derive(Default)]
pub(crate) struct Looks {
    begun: AtomicU64,
    /// The latest that was applied. std mutex: held while one is, never across an await.
    applied: Mutex<u64>,
}

impl Looks {
    /// Before the database is asked.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Applies what a look has found; `None`: one that began later was applied already.
    pub(crate) fn apply<T>(&self, look: u64, apply: impl FnOnce() -> T) -> Option<T> {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        (look > *applied).then(|| {
            *applied = look;
            apply()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_undoes_nothing() {
        let looks = Looks::default();
        let (slow, fast) = (looks.begin(), looks.begin());
        assert_eq!(looks.apply(fast, || "fast"), Some("fast"));
        assert_eq!(looks.apply(slow, || "slow"), None);
        assert_eq!(looks.apply(looks.begin(), || "next"), Some("next"));
    }
}
