//! Holds: who waits for the answer of another's request under the same Idempotency-Key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use batchin_domain::AccountId;
use batchin_shares::{Share, ShareLimits, Shares};
use batchin_store::IdempotencyScope;

/// Requests that wait for another's answer on this node: each asks the database once a second.
const MAX_WAITERS: u64 = 512;
/// Of these, the ones under one key. A client has one request under way and few that it gave up on.
const MAX_WAITERS_OF_A_KEY: usize = 16;

/// Who waits for the answers of others on this node.
pub(crate) struct Waiters {
    accounts: Arc<Shares<AccountId>>,
    /// std mutex: held for one look-up, never across an await. Only those that wait come here.
    keys: Mutex<HashMap<IdempotencyScope, usize>>,
}

/// One that waits; dropped, it does not any more.
pub(crate) struct Waiting {
    waiters: Arc<Waiters>,
    scope: IdempotencyScope,
    _share: Share<AccountId>,
}

impl Waiters {
    /// Nobody waits. One account may have so many percent of the waiters while it is alone.
    pub(crate) fn new(most_percent: u64) -> Arc<Self> {
        let accounts = Shares::new(ShareLimits { capacity: MAX_WAITERS, most_percent });
        Arc::new(Self { accounts, keys: Mutex::default() })
    }

    /// `None`: as many as may wait already.
    pub(crate) fn join(self: &Arc<Self>, scope: &IdempotencyScope) -> Option<Waiting> {
        let share = self.accounts.take(scope.account, 1).ok()?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let count = keys.entry(scope.clone()).or_default();
        if *count >= MAX_WAITERS_OF_A_KEY {
            return None;
        }
        *count += 1;
        Some(Waiting { waiters: Arc::clone(self), scope: scope.clone(), _share: share })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut keys = self.waiters.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = keys.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&self.scope);
            }
        }
    }
}
