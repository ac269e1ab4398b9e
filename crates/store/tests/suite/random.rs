//! Holds: several nodes that lease, settle, release, crash and are given up in random order, with fixed seeds.

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, Amount, KeyId, NodeId, Purse, escrow::Lease};
use batchin_store::{CommitError, Committer, FencedError, LeaseAsk, LeaseOutcome, NodeIdentity, Settlement, Store};
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::oneshot, task::JoinSet};

use crate::support::{Db, both, nanos, now, on, this_month, units};

const NODES: u64 = 4;
const STEPS: usize = 120;
const CREDIT: i64 = 6_000;
const BUDGET: i64 = 4_000;

/// What one node did, as far as it was told.
#[derive(Default)]
struct Told {
    /// Charges that were acknowledged, per account.
    charged: [i64; 2],
    /// Charges that may or may not have happened, per account.
    perhaps: [i64; 2],
}

/// What is heard of a settlement.
type Heard = oneshot::Receiver<Result<(), CommitError>>;

struct Node {
    db: Arc<Db>,
    rng: StdRng,
    /// Whether the connection is cut now and then, so that verbs may fail.
    cuts: bool,
    me: NodeIdentity,
    committer: Committer,
    payers: [(AccountId, KeyId); 2],
    /// Leased of each account's balance and of its key's budget.
    leases: [(Lease, Lease); 2],
    in_flight: Vec<(usize, Amount, Heard)>,
    told: Told,
}

impl Node {
    async fn start(db: Arc<Db>, payers: [(AccountId, KeyId); 2], seed: u64, cuts: bool) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let me = join(&db.store, NodeId::new(db.id())).await;
        let committer = db.committer(me);
        let (leases, in_flight, told) = (Default::default(), Vec::new(), Told::default());
        Self { db, rng, cuts, me, committer, payers, leases, in_flight, told }
    }

    async fn run(mut self) -> (Told, NodeIdentity) {
        for _ in 0..STEPS {
            let which = self.rng.random_range(0..2);
            match self.rng.random_range(0..100) {
                0..40 => self.lease(which).await,
                40..80 => self.settle(which).await,
                80..90 => self.release(which).await,
                90..93 => self.crash().await,
                93..97 => self.lapse().await,
                _ => self.reclaim_others().await,
            }
        }
        self.hear().await;
        self.committer.close();
        (self.told, self.me)
    }

    fn fails(&self, cause: &dyn std::error::Error) {
        assert!(self.cuts, "{cause:?}");
    }

    async fn lease(&mut self, which: usize) {
        let (account, key) = self.payers[which];
        let need = units(self.rng.random_range(1..200));
        for purse in [Purse::Balance(account), Purse::Budget(key, this_month())] {
            let want = units(self.rng.random_range(1..600));
            let ask = LeaseAsk { node: self.me, purse, need, want, grant: self.db.id(), recall: true };
            let lease = match purse {
                Purse::Balance(_) => &mut self.leases[which].0,
                _ => &mut self.leases[which].1,
            };
            match self.db.store.purses().lease(ask).await {
                Ok(LeaseOutcome::Granted { quantity, .. }) => lease.grant(quantity),
                Ok(LeaseOutcome::Short { available, .. }) => assert!(available < need),
                Ok(LeaseOutcome::Gone) => panic!("gone"),
                Err(FencedError::Fenced) => return self.rejoin().await,
                Err(FencedError::Store(cause)) => self.fails(&cause),
            }
        }
    }

    /// Charges part of what is free; sometimes goes on before it hears how that went.
    async fn settle(&mut self, which: usize) {
        let (account, key) = self.payers[which];
        let (balance, budget) = &mut self.leases[which];
        let free = balance.free().min(budget.free());
        if free.is_zero() {
            return;
        }
        let charge = nanos(self.rng.random_range(1..=free.units()));
        for lease in [balance, budget] {
            lease.hold(charge.into()).unwrap();
            lease.settle(charge.into(), charge.into());
        }
        let settlement =
            Settlement { key: Some(key), budget_held: true, ..self.db.settlement(account, charge.nanos()) };
        let heard = self.committer.submit(settlement).await.unwrap();
        self.in_flight.push((which, charge, heard));
        if self.rng.random_bool(0.6) && self.hear().await {
            self.rejoin().await;
        }
    }

    /// Hears how everything in flight went; whether this node was fenced.
    async fn hear(&mut self) -> bool {
        let mut fenced = false;
        for (which, charge, heard) in self.in_flight.drain(..) {
            match heard.await.unwrap() {
                Ok(()) => self.told.charged[which] += charge.nanos(),
                Err(CommitError::Fenced) => fenced = true,
                // Only an entry that a crash left behind can be unsure, and only when the connection is cut.
                Err(CommitError::Unavailable) if self.cuts => self.told.perhaps[which] += charge.nanos(),
                Err(cause) => panic!("{cause}"),
            }
        }
        fenced
    }

    async fn release(&mut self, which: usize) {
        let (account, key) = self.payers[which];
        let most = units(self.rng.random_range(0..400));
        let (balance, budget) = &mut self.leases[which];
        let returns = [
            (Purse::Budget(key, this_month()), budget.release(most)),
            (Purse::Balance(account), balance.release(most)),
        ];
        match self.db.store.purses().release(self.me, &returns).await {
            Ok(()) => {}
            Err(FencedError::Fenced) => self.rejoin().await,
            Err(FencedError::Store(cause)) => self.fails(&cause),
        }
    }

    /// Dies with settlements under way and starts again under its name.
    async fn crash(&mut self) {
        self.settle(0).await;
        self.rejoin().await;
    }

    async fn rejoin(&mut self) {
        self.me = join(&self.db.store, self.me.id).await;
        let before = std::mem::replace(&mut self.committer, self.db.committer(self.me));
        before.close();
        self.hear().await;
        self.leases = Default::default();
    }

    /// Lets its lease run out, so that the others may give it up.
    async fn lapse(&mut self) {
        match self.db.store.nodes().renew(self.me, now(), Duration::ZERO).await {
            Ok(()) => {}
            Err(FencedError::Fenced) => self.rejoin().await,
            Err(FencedError::Store(cause)) => self.fails(&cause),
        }
    }

    async fn reclaim_others(&mut self) {
        if let Err(cause) = self.db.store.nodes().reclaim(now(), Duration::ZERO).await {
            self.fails(&cause);
        }
    }
}

async fn join(store: &Store, id: NodeId) -> NodeIdentity {
    // A restarted server asks until it is let in.
    for _ in 0..50 {
        if let Ok(me) = store.nodes().join(id, now(), Duration::from_secs(60)).await {
            return me;
        }
    }
    panic!("could not join");
}

async fn play(db: Db, seed: u64, cuts: bool) -> Db {
    let db = Arc::new(db);
    let mut payers = Vec::new();
    for _ in 0..2 {
        let account = db.account(CREDIT).await;
        payers.push((account, db.key(account, 10, Some(BUDGET)).await));
    }
    let payers: [_; 2] = payers.try_into().unwrap();
    let mut nodes = JoinSet::new();
    for n in 0..NODES {
        nodes.spawn(Node::start(Arc::clone(&db), payers, seed * 100 + n, cuts).await.run());
    }
    let (mut told, mut last) = (Told::default(), Vec::new());
    loop {
        let cut = async {
            tokio::time::sleep(Duration::from_millis(if cuts { 60 } else { 60_000 })).await;
            db.raw("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
        };
        let done = tokio::select! { done = nodes.join_next() => done, () = cut => continue };
        let Some(done) = done else { break };
        let (one, me) = done.unwrap();
        for which in 0..2 {
            told.charged[which] += one.charged[which];
            told.perhaps[which] += one.perhaps[which];
        }
        last.push(me);
    }
    // In the middle of things the books are right too.
    db.assert_clean().await;
    let nodes = db.store.nodes();
    join_all(last.iter().map(|me| nodes.leave(*me))).await.into_iter().for_each(|left| left.unwrap());
    let report = db.assert_clean().await;
    assert_eq!(report.leased_nanos, 0);
    let node = db.node().await;
    for (which, (account, key)) in payers.into_iter().enumerate() {
        let balance = db.balance(account).await;
        let charged = CREDIT - balance;
        assert!(balance >= 0 && charged <= BUDGET, "{charged}");
        assert!(charged >= told.charged[which] && charged <= told.charged[which] + told.perhaps[which]);
        assert!(charged > BUDGET / 4, "the play was too dull: {charged}");
        assert_eq!(db.store.accounts().spent_in_month(key, this_month()).await.unwrap(), nanos(charged));
        // All that is unspent can be leased again, to the last unit.
        db.lease(node, Purse::Balance(account), balance).await;
        db.lease(node, Purse::Budget(key, this_month()), BUDGET - charged).await;
        assert_eq!(db.available(node, Purse::Balance(account)).await, units(0));
    }
    db.assert_clean().await;
    Arc::into_inner(db).unwrap()
}

both! {
    async fn no_order_of_events_breaks_the_books(db) {
        // Each seed on a database of its own, of the same kind.
        for seed in 1..=3 {
            let other = if db.is_postgres() { Db::postgres().await } else { Db::sqlite().await };
            on(play(other, seed, false).await, async |_| {}).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_at_random_break_nothing() {
    for seed in 11..=12 {
        on(play(Db::postgres().await, seed, true).await, async |_| {}).await;
    }
}
