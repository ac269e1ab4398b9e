//! Holds: what many use at once, parted so that nobody has what the others need: places, memory, uploads.
//!
//! What a holder may have depends on what is free: one that is alone may have nearly all, something is left for whoever
//! comes next, and what the greedy give back goes to others until all have alike. Nobody has to know how many they are.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Parts of the table of holders, so that requests of different holders seldom meet.
const SHARDS: usize = 32;

/// How much there is, and how much of it one holder may have.
#[derive(Clone, Copy, Debug)]
pub struct ShareLimits {
    /// All there is.
    pub capacity: u64,
    /// What one holder may have of it while nobody else has any, in percent, 1 to 100. A holder that has something may
    /// have as many times of what is free as this leaves free: with 90, nine times.
    pub most_percent: u64,
}

/// Why nothing more is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// All of it is in use.
    Full,
    /// This holder has its part.
    OverPart,
}

/// What is shared.
pub struct Shares<K> {
    limits: ShareLimits,
    taken: AtomicU64,
    hashing: RandomState,
    /// std mutexes: held for one look-up, never across an await.
    holders: [Mutex<HashMap<K, u64>>; SHARDS],
}

/// A part of it, which is free again when this is dropped.
#[must_use = "a dropped share is given back"]
pub struct Share<K: Copy + Eq + Hash> {
    of: Arc<Shares<K>>,
    holder: K,
    amount: u64,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// All of it free.
    pub fn new(limits: ShareLimits) -> Arc<Self> {
        let holders = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { limits, taken: AtomicU64::new(0), hashing: RandomState::new(), holders })
    }

    /// How much is in use.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes a part for a holder. The first one is given to everybody as long as there is enough.
    pub fn take(self: &Arc<Self>, holder: K, amount: u64) -> Result<Share<K>, NoShare> {
        self.add(holder, amount)?;
        Ok(Share { of: Arc::clone(self), holder, amount })
    }

    fn add(&self, holder: K, amount: u64) -> Result<(), NoShare> {
        let before = self.taken.fetch_add(amount, Ordering::Relaxed);
        let Some(free) = self.limits.capacity.checked_sub(before.saturating_add(amount)) else {
            self.taken.fetch_sub(amount, Ordering::Relaxed);
            return Err(NoShare::Full);
        };
        let mut holders = self.shard(&holder);
        let held = holders.entry(holder).or_default();
        let wanted = u128::from(*held) + u128::from(amount);
        let (part, rest) = (u128::from(self.limits.most_percent), 100 - u128::from(self.limits.most_percent.min(100)));
        if *held > 0 && wanted * rest > u128::from(free) * part {
            drop(holders);
            self.taken.fetch_sub(amount, Ordering::Relaxed);
            return Err(NoShare::OverPart);
        }
        *held += amount;
        Ok(())
    }

    fn give_back(&self, holder: K, amount: u64) {
        let mut holders = self.shard(&holder);
        if let Some(held) = holders.get_mut(&holder) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                holders.remove(&holder);
            }
        }
        drop(holders);
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }

    fn shard(&self, holder: &K) -> std::sync::MutexGuard<'_, HashMap<K, u64>> {
        let hash = self.hashing.hash_one(holder);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.holders[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Share<K> {
    /// Takes more of it.
    pub fn grow(&mut self, amount: u64) -> Result<(), NoShare> {
        self.of.add(self.holder, amount)?;
        self.amount += amount;
        Ok(())
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.of.give_back(self.holder, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(shares: &Arc<Shares<u32>>, holder: u32) -> (Vec<Share<u32>>, NoShare) {
        let mut held = Vec::new();
        loop {
            match shares.take(holder, 1) {
                Ok(share) => held.push(share),
                Err(why) => return (held, why),
            }
        }
    }

    #[test]
    fn one_that_is_alone_may_have_nearly_all_and_gives_all_of_it_back() {
        let shares = Shares::new(ShareLimits { capacity: 30, most_percent: 90 });
        let (greedy, why) = fill(&shares, 1);
        assert_eq!((greedy.len(), why), (27, NoShare::OverPart));
        let (other, why) = fill(&shares, 2);
        assert_eq!((other.len(), why), (2, NoShare::OverPart), "and one is left for a third");
        let last = shares.take(3, 1).unwrap();
        assert!(matches!(shares.take(4, 1), Err(NoShare::Full)));
        drop((greedy, other, last));
        assert_eq!(shares.taken(), 0);
        assert!(shares.holders.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn what_the_greedy_give_back_goes_to_others_first() {
        let shares = Shares::new(ShareLimits { capacity: 2_048, most_percent: 90 });
        let (mut greedy, _) = fill(&shares, 1);
        let (newcomer, why) = fill(&shares, 2);
        assert_eq!((greedy.len(), newcomer.len(), why), (1_843, 184, NoShare::OverPart));
        greedy.truncate(1_000);
        let (more, _) = fill(&shares, 2);
        assert!(shares.take(1, 1).is_err(), "it has its part");
        assert_eq!(newcomer.len() + more.len(), 943);
    }

    #[test]
    fn where_there_is_one_it_is_for_whoever_asks_first() {
        let shares = Shares::new(ShareLimits { capacity: 1, most_percent: 50 });
        let only = shares.take(1, 1).unwrap();
        assert!(matches!(shares.take(2, 1), Err(NoShare::Full)));
        drop(only);
        let mut grown = Shares::new(ShareLimits { capacity: 100, most_percent: 50 }).take(1, 40).unwrap();
        assert_eq!(grown.grow(11), Err(NoShare::OverPart));
        grown.grow(10).unwrap();
    }
}
