//! Holds: what this node is sending, and what it has room for.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use batchin_domain::{AccountId, webhook::EventId};
use batchin_store::{DeliveryRoom, EndpointId};
use tokio::sync::Notify;

/// Tries at once on this node: each is a connection that waits for somebody else.
const TOTAL: usize = 64;
/// At once to one server of one account: what is dead takes no more than these places for as long as it times out.
const PER_ENDPOINT: usize = 4;
/// At once for one account, however many servers it names.
const PER_ACCOUNT: usize = 16;

/// Places for tries.
#[derive(Default)]
pub(crate) struct InFlight {
    // std mutex: held for map look-ups, never across an await.
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    deliveries: Vec<EventId>,
    endpoints: HashMap<EndpointId, usize>,
    accounts: HashMap<AccountId, usize>,
}

/// A place, free again when dropped.
pub(crate) struct Place {
    of: Arc<InFlight>,
    delivery: EventId,
    endpoint: EndpointId,
    account: AccountId,
}

impl InFlight {
    /// What there is room for.
    pub(crate) fn room(&self) -> DeliveryRoom {
        let taken = self.lock();
        DeliveryRoom {
            total: TOTAL.saturating_sub(taken.deliveries.len()),
            per_endpoint: PER_ENDPOINT,
            per_account: PER_ACCOUNT,
            endpoints: taken.endpoints.clone(),
            accounts: taken.accounts.clone(),
        }
    }

    /// What is being sent.
    pub(crate) fn deliveries(&self) -> Vec<EventId> {
        self.lock().deliveries.clone()
    }

    pub(crate) fn take(self: &Arc<Self>, delivery: EventId, endpoint: EndpointId, account: AccountId) -> Place {
        let mut taken = self.lock();
        taken.deliveries.push(delivery);
        *taken.endpoints.entry(endpoint).or_default() += 1;
        *taken.accounts.entry(account).or_default() += 1;
        drop(taken);
        Place { of: Arc::clone(self), delivery, endpoint, account }
    }

    /// Waits until a place has become free.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        if let Some(at) = taken.deliveries.iter().position(|delivery| *delivery == self.delivery) {
            taken.deliveries.swap_remove(at);
        }
        leave(&mut taken.endpoints, &self.endpoint);
        leave(&mut taken.accounts, &self.account);
        drop(taken);
        self.of.freed.notify_one();
    }
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
