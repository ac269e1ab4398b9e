//! Holds: what this node has leased, and the holds on it.
//!
//! Setting money aside is a matter of memory; the database is asked when a lease runs out, before anybody is refused.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use batchin_domain::{
    IdSource, Purse, PurseKind, Quantity, Timestamp,
    escrow::{LEASE_HORIZON, Lease},
};
use batchin_store::{FencedError, LeaseAsk, LeaseOutcome, NodeIdentity, Purses, StoreError};
use batchin_tasks::Tasks;
use metrics::{counter, gauge};
use tokio::{sync::Semaphore, time::Instant};
use tracing::warn;

/// A lease without use for this long is given back.
const IDLE: Duration = Duration::from_secs(3);
/// How long others have to answer a recall before somebody is refused.
const RECALL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at whether a recall was answered.
const RECALL_PAUSE: Duration = Duration::from_millis(15);
/// Tries of one grant whose outcome is unknown, under the same grant id.
const GRANT_TRIES: u32 = 3;
/// Lease at least this many times the request at hand, where there is enough: requests seldom come alone.
const GRANT_AHEAD: u32 = 4;
/// Locks for the purses, so that accounts seldom meet.
const SHARDS: usize = 16;

/// Why nothing could be set aside.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    /// The store has been asked and has not enough.
    #[error("the purse has only {available:?}")]
    Short {
        /// What could be set aside.
        available: Quantity,
    },
    /// The purse's owner is gone.
    #[error("the purse's owner is gone")]
    Gone,
    /// This node's epoch is over.
    #[error("this node's epoch has ended")]
    Fenced,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// What asked the store ended without a word.
    #[error("the asking was interrupted")]
    Interrupted,
}

/// All leases of one epoch of this node.
pub struct Escrow {
    purses: Purses,
    node: NodeIdentity,
    ids: Arc<dyn IdSource>,
    /// What asks the store runs here, to its end.
    tasks: Tasks,
    /// std mutexes: held for one map look-up, never across an await.
    shards: [Mutex<HashMap<Purse, Arc<Pot>>>; SHARDS],
    /// The store may count more as leased than this node knows of: something failed whose outcome is unknown.
    unsure: AtomicBool,
}

/// One purse's lease.
struct Pot {
    purse: Purse,
    /// std mutex: held for a few additions.
    state: Mutex<PotState>,
    /// One caller at a time asks the store; the others find what it brought.
    filling: Arc<Semaphore>,
}

struct PotState {
    lease: Lease,
    /// What the store had left for others when it last granted.
    left: Quantity,
    spending: Spending,
    last_used: Instant,
    /// Taken out of the map; whoever still has it must look again.
    dead: bool,
}

/// What was held in this and in the last [`LEASE_HORIZON`].
struct Spending {
    since: Instant,
    current: Quantity,
    previous: Quantity,
}

impl Spending {
    fn note(&mut self, quantity: Quantity, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= LEASE_HORIZON {
            self.previous = if elapsed < LEASE_HORIZON * 2 { self.current } else { Quantity::ZERO };
            self.current = Quantity::ZERO;
            self.since = now;
        }
        self.current = self.current.saturating_add(quantity);
    }

    fn in_horizon(&self) -> Quantity {
        self.current.max(self.previous)
    }
}

/// What is set aside for one request. Ends by [`Hold::settle`]; dropped, all of it is free again.
#[must_use = "a dropped hold is given back"]
pub struct Hold {
    pot: Arc<Pot>,
    quantity: Quantity,
}

impl Hold {
    /// What is still set aside.
    pub fn quantity(&self) -> Quantity {
        self.quantity
    }

    /// `used` goes to the ledger, the rest is free again.
    pub fn settle(mut self, used: Quantity) {
        self.pot.lock().lease.settle(self.quantity, used);
        self.quantity = Quantity::ZERO;
    }

    /// `used` goes to the ledger, the rest stays set aside.
    pub fn settle_part(&mut self, used: Quantity) {
        let used = used.min(self.quantity);
        self.pot.lock().lease.settle(used, used);
        self.quantity = self.quantity.saturating_sub(used);
    }

    /// What the purse is known to have beside this hold: free here and left at the store.
    pub fn remaining(&self) -> Quantity {
        let state = self.pot.lock();
        state.lease.free().saturating_add(state.left)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.quantity.is_zero() {
            self.pot.lock().lease.settle(self.quantity, Quantity::ZERO);
        }
    }
}

impl Pot {
    fn lock(&self) -> MutexGuard<'_, PotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: not enough here. `Some(None)`: this pot is dead.
    fn try_hold(self: &Arc<Self>, quantity: Quantity) -> Option<Option<Hold>> {
        let mut state = self.lock();
        if state.dead {
            return Some(None);
        }
        let now = Instant::now();
        state.last_used = now;
        state.lease.hold(quantity).ok()?;
        state.spending.note(quantity, now);
        Some(Some(Hold { pot: Arc::clone(self), quantity }))
    }
}

impl Escrow {
    /// `tasks` must be shut down after everything that spends and before the node leaves.
    pub(crate) fn new(purses: Purses, node: NodeIdentity, ids: Arc<dyn IdSource>, tasks: Tasks) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { purses, node, ids, tasks, shards, unsure: AtomicBool::new(false) }
    }

    /// Sets something aside, leasing more if need be.
    ///
    /// A caller may stop waiting at any time: what was leased for it is then free for others, and is given back like
    /// everything that lies idle.
    pub async fn hold(self: &Arc<Self>, purse: Purse, quantity: Quantity) -> Result<Hold, EscrowError> {
        loop {
            let pot = self.pot(purse);
            match pot.try_hold(quantity) {
                Some(Some(hold)) => return Ok(hold),
                Some(None) => continue,
                None => {}
            }
            let Ok(turn) = Arc::clone(&pot.filling).acquire_owned().await else { return Err(EscrowError::Fenced) };
            let escrow = Arc::clone(self);
            let filled = self.tasks.see_through("escrow_fill", async move {
                let _turn = turn;
                escrow.fill(&pot, quantity).await
            });
            match filled.await {
                Some(Ok(None)) => {}
                Some(Ok(Some(hold))) => return Ok(hold),
                Some(Err(cause)) => return Err(cause),
                None => {
                    self.note_unsure();
                    return Err(EscrowError::Interrupted);
                }
            }
        }
    }

    /// Asks the store until so much can be held or is refused with authority. `None`: the pot died meanwhile.
    async fn fill(&self, pot: &Arc<Pot>, quantity: Quantity) -> Result<Option<Hold>, EscrowError> {
        let (began, mut recall) = (Instant::now(), true);
        loop {
            if let Some(held) = pot.try_hold(quantity) {
                return Ok(held);
            }
            let (free, recent) = {
                let state = pot.lock();
                (state.lease.free(), state.spending.in_horizon())
            };
            let ahead = quantity.saturating_mul(GRANT_AHEAD);
            let need = quantity.saturating_sub(free);
            match self.ask(pot.purse, need, recent.max(ahead), recall).await? {
                LeaseOutcome::Granted { quantity, left } => {
                    let mut state = pot.lock();
                    state.lease.grant(quantity);
                    state.left = left;
                }
                LeaseOutcome::Short { recalling: true, .. } if began.elapsed() < RECALL_PATIENCE => {
                    // Others are asked once; when all have answered, what they hold is in use.
                    recall = false;
                    batchin_faults::point("lease.recalled");
                    tokio::time::sleep(RECALL_PAUSE).await;
                }
                LeaseOutcome::Short { available, .. } => {
                    // A hold that ended meanwhile may have made room.
                    if let Some(held) = pot.try_hold(quantity) {
                        return Ok(held);
                    }
                    pot.lock().left = available;
                    return Err(EscrowError::Short { available: available.saturating_add(free) });
                }
                LeaseOutcome::Gone => return Err(EscrowError::Gone),
            }
        }
    }

    async fn ask(
        &self,
        purse: Purse,
        need: Quantity,
        want: Quantity,
        recall: bool,
    ) -> Result<LeaseOutcome, EscrowError> {
        let ask = LeaseAsk { node: self.node, purse, need, want, grant: self.ids.uuid(), recall };
        counter!("batchin_lease_grants_total", "purse" => purse_name(purse.kind())).increment(1);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.purses.lease(ask).await {
                Ok(outcome) => {
                    batchin_faults::point("lease.granted");
                    return Ok(outcome);
                }
                Err(FencedError::Fenced) => return Err(EscrowError::Fenced),
                Err(FencedError::Store(cause)) if cause.is_passing() && tries < GRANT_TRIES => {}
                Err(FencedError::Store(cause)) => {
                    self.note_unsure();
                    return Err(EscrowError::Store(cause));
                }
            }
        }
    }

    /// Something was leased, returned or charged, or was not: the database did not say.
    pub(crate) fn note_unsure(&self) {
        self.unsure.store(true, Ordering::Relaxed);
    }

    /// Whether a new epoch would free what only the store still counts as leased, at a moment when nothing is lost by it:
    /// no request has used a purse for a while.
    pub(crate) fn is_worth_leaving(&self) -> bool {
        let is_quiet = |pot: Arc<Pot>| {
            let state = pot.lock();
            !state.lease.is_held() && state.last_used.elapsed() >= IDLE
        };
        self.unsure.load(Ordering::Relaxed) && self.pots().into_iter().all(is_quiet)
    }

    fn shard(&self, purse: Purse) -> MutexGuard<'_, HashMap<Purse, Arc<Pot>>> {
        // UUIDs are random in their last byte; windows add nothing.
        let index = usize::from(purse.owner().as_bytes()[15]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pot(&self, purse: Purse) -> Arc<Pot> {
        let fresh = || {
            let now = Instant::now();
            Arc::new(Pot {
                purse,
                state: Mutex::new(PotState {
                    lease: Lease::default(),
                    left: Quantity::ZERO,
                    spending: Spending { since: now, current: Quantity::ZERO, previous: Quantity::ZERO },
                    last_used: now,
                    dead: false,
                }),
                filling: Arc::new(Semaphore::new(1)),
            })
        };
        Arc::clone(self.shard(purse).entry(purse).or_insert_with(fresh))
    }

    fn pots(&self) -> Vec<Arc<Pot>> {
        let all = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        all.flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Gives back what lies idle and forgets what is over. Called every second or so.
    pub(crate) async fn tidy(&self, now: Timestamp) {
        let mut returns = Vec::new();
        let mut held = 0;
        for pot in self.pots() {
            if pot.filling.available_permits() == 0 {
                // Somebody is asking the store for it.
                continue;
            }
            let mut state = pot.lock();
            let over = matches!(pot.purse, Purse::Requests(_, minute) if minute < now.minute());
            let idle = state.last_used.elapsed() >= IDLE;
            held += i64::from(!state.lease.is_empty());
            if over || (idle && state.lease.is_empty()) {
                state.dead = true;
                self.shard(pot.purse).remove(&pot.purse);
            } else if idle {
                let quantity = state.lease.release(Quantity::MAX);
                if !quantity.is_zero() {
                    returns.push((pot.purse, quantity));
                }
            }
        }
        gauge!("batchin_leases_open").set(held as f64);
        self.give_back(returns).await;
    }

    /// Answers recalls by other nodes with all that is free.
    pub(crate) async fn answer_recalls(&self) {
        let recalled = match self.purses.recalled(self.node).await {
            Ok(recalled) => recalled,
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "recalls could not be read");
                return;
            }
        };
        let returns = recalled.into_iter().map(|purse| {
            let known = self.shard(purse).get(&purse).cloned();
            (purse, known.map_or(Quantity::ZERO, |pot| pot.lock().lease.release(Quantity::MAX)))
        });
        self.give_back(returns.collect()).await;
    }

    /// Gives back the requests of minutes that are free, before the node leaves. Of those that it keeps nobody would know
    /// afterwards whether they were made; money comes back by itself.
    pub(crate) async fn give_requests_back(&self) {
        let counts = self.pots().into_iter().filter(|pot| matches!(pot.purse, Purse::Requests(..)));
        let free = counts.map(|pot| (pot.purse, pot.lock().lease.release(Quantity::MAX)));
        self.give_back(free.filter(|(_, quantity)| !quantity.is_zero()).collect()).await;
    }

    async fn give_back(&self, returns: Vec<(Purse, Quantity)>) {
        if returns.is_empty() {
            return;
        }
        batchin_faults::point("lease.returning");
        match self.purses.release(self.node, &returns).await {
            // The epoch is over: the store has taken everything back already.
            Ok(()) | Err(FencedError::Fenced) => batchin_faults::point("lease.returned"),
            Err(FencedError::Store(cause)) => {
                // Whether it was committed is unknown; keeping them out of use is safe, and they are back with
                // the node's next epoch.
                self.note_unsure();
                warn!(error = &cause as &dyn std::error::Error, "leases could not be given back");
            }
        }
    }
}

const fn purse_name(kind: PurseKind) -> &'static str {
    match kind {
        PurseKind::Balance => "balance",
        PurseKind::Budget => "budget",
        PurseKind::Requests => "requests",
        PurseKind::Cap => "batch",
    }
}
