//! Holds: where prompts ran that began alike, in bounded memory: their servers may still have that beginning in their caches.

use std::collections::HashMap;

use crate::ReplicaId;

/// Beginnings remembered in each of two generations: more than the caches of a fleet hold. Forgetting one costs a prompt
/// that is read anew.
const GENERATION_LEN: usize = 16_384;

/// Where prompts with a beginning ran last.
#[derive(Debug, Default)]
pub struct Affinity {
    young: HashMap<u64, ReplicaId>,
    old: HashMap<u64, ReplicaId>,
}

impl Affinity {
    /// Where a prompt with this beginning ran last, as far as that is remembered.
    pub fn of(&self, beginning: u64) -> Option<ReplicaId> {
        self.young.get(&beginning).or_else(|| self.old.get(&beginning)).copied()
    }

    /// One runs here now.
    pub fn note(&mut self, beginning: u64, replica: ReplicaId) {
        if self.young.len() >= GENERATION_LEN && !self.young.contains_key(&beginning) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(beginning, replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_remembered_and_memory_is_bounded() {
        let mut affinity = Affinity::default();
        affinity.note(u64::MAX, ReplicaId(7));
        assert_eq!(affinity.of(u64::MAX), Some(ReplicaId(7)));
        affinity.note(u64::MAX, ReplicaId(8));
        assert_eq!(affinity.of(u64::MAX), Some(ReplicaId(8)), "the last one");
        let most = GENERATION_LEN as u64;
        for beginning in 0..4 * most {
            affinity.note(beginning, ReplicaId(1));
            if beginning % (most / 2) == 0 {
                affinity.note(u64::MAX, ReplicaId(8));
            }
        }
        assert_eq!(affinity.of(u64::MAX), Some(ReplicaId(8)));
        assert_eq!((affinity.of(0), affinity.of(4 * most - 1)), (None, Some(ReplicaId(1))));
        assert!(affinity.young.len() + affinity.old.len() <= 2 * GENERATION_LEN);
    }
}
