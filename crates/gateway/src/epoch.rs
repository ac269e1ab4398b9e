//! Holds: one life of this node in the database, its lease and its end.
//!
//! The keeper renews the lease, takes back what nodes that stayed away had, and starts a new epoch when this one has
//! been ended from outside. Everything that spends belongs to the epoch that it was admitted in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use batchin_domain::{Clock, IdSource, NodeId, Timestamp, escrow::Fence};
use batchin_store::{
    CommitError, Committer, CommitterOptions, FencedError, Ledger, NodeIdentity, Nodes, Purses, Settlement, StoreError,
};
use batchin_tasks::Tasks;
use metrics::counter;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::Escrow;

/// Renewals in one lease: three may fail before the node falls silent.
const RENEWALS_PER_LEASE: u32 = 4;
/// Between two looks at recalls while other nodes are alive; a refusal waits for it.
const RECALL_LOOK: Duration = Duration::from_millis(40);
/// Between two rounds of giving idle leases back.
const TIDY: Duration = Duration::from_secs(1);

/// This node may not spend now: it lost touch with the database.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this node cannot reach its ledger")]
pub struct Fenced;

/// One epoch: an identity, the money it leased and the writer that charges for it.
pub struct Epoch {
    /// The node and its epoch.
    pub identity: NodeIdentity,
    /// What it has leased.
    pub escrow: Arc<Escrow>,
    /// The way to the ledger.
    pub committer: Committer,
    /// When this node asked for it: the origin of its own clock, which no operator sets back.
    began: Instant,
    /// The end of the [`Fence`], in microseconds of that clock.
    deadline: AtomicI64,
}

impl Epoch {
    /// Whether this node may still send and spend.
    pub fn holds(&self) -> bool {
        let fence = Fence::until(Timestamp::from_micros(self.deadline.load(Ordering::Acquire)));
        fence.holds_at(self.at(Instant::now()))
    }

    fn extend(&self, asked: Instant, lease: Duration) {
        let fence = Fence::new(self.at(asked), lease);
        self.deadline.store(fence.deadline().micros(), Ordering::Release);
    }

    /// A point in time by this node's own clock.
    fn at(&self, instant: Instant) -> Timestamp {
        Timestamp::from_micros(0).after(instant.saturating_duration_since(self.began))
    }
}

/// What becomes of settlements that fail, whoever waits for them.
struct Failed {
    ledger: Ledger,
    escrow: Arc<Escrow>,
    tasks: Tasks,
}

impl Failed {
    fn note(&self, settlement: &Settlement, cause: CommitError) {
        match cause {
            // Who goes on with a film charges for it.
            CommitError::Fenced if settlement.film.is_some() => {}
            CommitError::Fenced => self.book_late(settlement),
            CommitError::Unavailable | CommitError::Refused => self.escrow.note_unsure(),
            CommitError::StaleTask => {}
        }
    }

    /// What comes too late is booked as our loss.
    fn book_late(&self, settlement: &Settlement) {
        counter!("batchin_late_usage_total").increment(1);
        error!(nanos = settlement.charge.nanos(), "usage came after its node was fenced; it is ours to bear");
        let (ledger, settlement) = (self.ledger.clone(), settlement.clone());
        self.tasks.spawn("book_late", move |_| async move {
            batchin_faults::point("late.booking");
            // Nothing was charged under this id.
            if let Err(cause) = ledger.book_late(settlement.charge_id, &settlement, settlement.now).await {
                error!(error = &cause as &dyn std::error::Error, "late usage could not be booked");
            }
            batchin_faults::point("late.booked");
        });
    }
}

/// The books by which a node spends. Cheap to clone.
#[derive(Clone)]
pub struct Books {
    /// The nodes on this database.
    pub nodes: Nodes,
    /// What may be spent.
    pub purses: Purses,
    /// What was spent.
    pub ledger: Ledger,
}

/// How the keeper behaves.
#[derive(Clone, Copy, Debug)]
pub struct KeeperOptions {
    /// The same over restarts.
    pub node: NodeId,
    /// How long the node may go on without a word from the database.
    pub lease: Duration,
    /// How long the store waits beyond a lease before it takes it back.
    pub grace: Duration,
}

/// Keeps this node's lease.
pub struct Keeper {
    pub(crate) books: Books,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    options: KeeperOptions,
    /// Waits for committers and for leases that were asked for: ended after everything that spends.
    writers: Tasks,
    current: ArcSwap<Epoch>,
}

impl Keeper {
    /// Joins and starts to keep the lease. `writers` must be shut down after the tasks that spend and settle.
    pub async fn start(
        books: Books,
        world: (Arc<dyn Clock>, Arc<dyn IdSource>),
        options: KeeperOptions,
        tasks: &Tasks,
        writers: &Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let (clock, ids) = world;
        let asked = Instant::now();
        let identity = books.nodes.join(options.node, clock.now(), options.lease).await?;
        batchin_faults::point("node.joined");
        let epoch = Self::fresh((&books, &ids), identity, asked, options.lease, writers);
        info!(node = %identity.id, epoch = identity.epoch, "node {} joined with epoch {}", identity.id, identity.epoch);
        let current = ArcSwap::from_pointee(epoch);
        let keeper = Arc::new(Self { books, clock, ids, options, writers: writers.clone(), current });
        let keep = Arc::clone(&keeper);
        tasks.spawn("node_lease", move |stop| async move { keep.keep(stop).await });
        let tidy = Arc::clone(&keeper);
        tasks.spawn("escrow_tidy", move |stop| async move { tidy.tidy(stop).await });
        Ok(keeper)
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Arc<Epoch> {
        self.current.load_full()
    }

    /// An epoch whose lease was asked for at `asked`.
    fn fresh(
        (books, ids): (&Books, &Arc<dyn IdSource>),
        identity: NodeIdentity,
        asked: Instant,
        lease: Duration,
        writers: &Tasks,
    ) -> Epoch {
        let escrow = Arc::new(Escrow::new(books.purses.clone(), identity, Arc::clone(ids), writers.clone()));
        let failed = Failed { ledger: books.ledger.clone(), escrow: Arc::clone(&escrow), tasks: writers.clone() };
        let on_failure = Arc::new(move |settlement: &Settlement, cause| failed.note(settlement, cause));
        let options = CommitterOptions { give_up_after: lease, on_failure };
        let epoch = Epoch {
            identity,
            escrow,
            committer: Committer::start(books.ledger.clone(), identity, options, writers),
            began: asked,
            deadline: AtomicI64::new(0),
        };
        epoch.extend(asked, lease);
        epoch
    }

    async fn keep(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.options.lease / RENEWALS_PER_LEASE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let epoch = self.current.load_full();
            // Rule 1: this node's clock starts when it asks.
            let asked = Instant::now();
            match self.books.nodes.renew(epoch.identity, self.clock.now(), self.options.lease).await {
                Ok(()) => {
                    batchin_faults::point("node.renewed");
                    epoch.extend(asked, self.options.lease);
                    if epoch.escrow.is_worth_leaving() {
                        info!("starting a new epoch, to free what an outage left locked up");
                        self.rejoin(&epoch).await;
                    }
                }
                Err(FencedError::Fenced) => {
                    let ended = epoch.identity.epoch;
                    error!(epoch = ended, "epoch {ended} was ended from outside; joining anew");
                    counter!("batchin_node_fenced_total").increment(1);
                    self.rejoin(&epoch).await;
                }
                Err(FencedError::Store(cause)) => {
                    warn!(error = &cause as &dyn std::error::Error, "the node's lease could not be renewed");
                }
            }
            self.reclaim().await;
        }
    }

    /// Starts a new epoch, which takes back what the old one had.
    async fn rejoin(&self, old: &Epoch) {
        let asked = Instant::now();
        match self.books.nodes.join(self.options.node, self.clock.now(), self.options.lease).await {
            Ok(identity) => {
                batchin_faults::point("node.rejoined");
                let world = (&self.books, &self.ids);
                let epoch = Self::fresh(world, identity, asked, self.options.lease, &self.writers);
                self.current.store(Arc::new(epoch));
                old.committer.close();
            }
            Err(cause) => warn!(error = &cause as &dyn std::error::Error, "the node could not join anew"),
        }
    }

    async fn reclaim(&self) {
        match self.books.nodes.reclaim(self.clock.now(), self.options.grace).await {
            Ok(reclaimed) if reclaimed.nodes > 0 => {
                warn!(
                    nodes = reclaimed.nodes,
                    tasks = reclaimed.tasks,
                    "took back what {} node(s) had",
                    reclaimed.nodes
                );
            }
            Ok(_) => {}
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "nodes that stay away could not be looked for");
            }
        }
    }

    async fn tidy(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RECALL_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tidied, mut alone) = (Instant::now(), true);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let epoch = self.current.load_full();
            if !alone {
                epoch.escrow.answer_recalls().await;
            }
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                epoch.escrow.tidy(self.clock.now()).await;
                alone = self.books.nodes.live_nodes().await.is_ok_and(|nodes| nodes <= 1);
            }
        }
    }

    /// Ends the epoch in good order, once what was handed in is written. Call it when nothing settles any more.
    pub async fn leave(&self, patience: Duration) -> Result<(), StoreError> {
        let epoch = self.current.load_full();
        epoch.committer.close();
        self.writers.shutdown(patience).await;
        batchin_faults::point("node.leaving");
        epoch.escrow.give_requests_back().await;
        self.books.nodes.leave(epoch.identity).await?;
        batchin_faults::point("node.left");
        Ok(())
    }
}
