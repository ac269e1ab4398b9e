//! Holds: over random sequences of loading, success, failure, retry, crash, cancel and expiry, every line of a batch ends
//! exactly once, and exactly the completed ones are charged.

use std::{collections::BTreeSet, time::Duration};

use batchin_domain::{AccountId, BatchId, Chore, Ending, NodeId, Priority, Purse, TaskStatus};
use batchin_store::{BatchFiles, BatchRow, ClaimedTask, Committer, NodeIdentity, Piece, Requeue};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{Db, both, completed, failed, now};

/// Lines of the batch.
const LINES: u32 = 40;
/// What one completed line costs.
const COST: i64 = 3;

struct Run<'a> {
    db: &'a Db,
    rng: StdRng,
    account: AccountId,
    batch: BatchId,
    node: NodeIdentity,
    committer: Committer,
    claimed: Vec<ClaimedTask>,
}

impl Run<'_> {
    async fn row(&self) -> BatchRow {
        self.db.store.batch_rows().batch(self.account, self.batch).await.unwrap().unwrap()
    }

    /// A new life of the node: what the old one had claimed and begun is taken back.
    async fn crash(&mut self) {
        self.node = self.db.store.nodes().join(self.node.id, now(), Duration::from_secs(60)).await.unwrap();
        self.committer = self.db.committer(self.node);
        if self.rng.random() {
            self.claimed.clear();
        }
        self.db.lease(self.node, Purse::Balance(self.account), 1_000).await;
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..35 => {
                let number = self.rng.random_range(1..8);
                self.claimed.extend(self.db.claim(self.node, Priority::Low, number, now()).await.unwrap());
            }
            35..70 => self.end_some().await,
            70..78 => self.requeue().await,
            78..84 => self.crash().await,
            84..96 => self.chore().await,
            96..98 => drop(self.db.store.endings().cancel_batch(self.account, self.batch, now()).await.unwrap()),
            _ => drop(self.db.store.endings().stop_batch(self.batch, Ending::Expired, now()).await.unwrap()),
        }
    }

    /// Ends some of the claimed tasks in one group, some of them twice.
    async fn end_some(&mut self) {
        let mut ends = Vec::new();
        for _ in 0..self.rng.random_range(1..6) {
            if self.claimed.is_empty() {
                break;
            }
            let at = self.rng.random_range(0..self.claimed.len());
            let again = self.rng.random_range(0..5) == 0;
            let task = if again { self.claimed[at].clone() } else { self.claimed.remove(at) };
            let good = self.rng.random_range(0..4) > 0;
            let end = if good { completed() } else { failed() };
            ends.push(self.db.ending(&task, if good { COST } else { 0 }, end));
        }
        // What is out of date or fenced is refused and charged nothing, which the end of the run shows.
        futures::future::join_all(ends.into_iter().map(|end| self.committer.commit(end))).await;
    }

    async fn requeue(&mut self) {
        if self.claimed.is_empty() {
            return;
        }
        let task = self.claimed.swap_remove(self.rng.random_range(0..self.claimed.len()));
        let back = Requeue { claim: task.claim, not_before: now(), counts: self.rng.random() };
        self.db.store.claims().requeue(&[back]).await.unwrap();
    }

    /// Takes a chore and does some of it, or all, or nothing.
    async fn chore(&mut self) {
        let Some(batch) = self.db.store.chores().take_chore(self.node, None, now()).await.unwrap() else { return };
        let store = &self.db.store;
        let done = match batch.chore {
            Chore::Read => store.chores().accept_batch(self.node, batch.id, (LINES, None), now()).await,
            Chore::Load => {
                let number = self.rng.random_range(1..=LINES - batch.loaded);
                let tasks = self.db.new_tasks(batch.loaded as usize, number as usize);
                store
                    .chores()
                    .load_tasks(self.node, batch.id, Piece { from: batch.loaded, bytes: 1, tasks: &tasks }, now())
                    .await
            }
            Chore::Stop => {
                let from = u64::from(self.rng.random_range(0..LINES));
                store.chores().stop_tasks(self.node, batch.id, from..from + 10, now()).await
            }
            Chore::Close => {
                let times = (now(), now());
                store.chores().close_batch(self.node, batch.id, BatchFiles::default(), times).await
            }
            Chore::None => Ok(()),
        };
        done.unwrap();
        store.chores().leave_chore(self.node, batch.id).await.unwrap();
    }

    async fn check(&self) {
        let batch = self.row().await;
        let mut ended = self.db.store.batch_rows().ended_tasks(self.batch, 0, LINES + 1).await.unwrap();
        let seqs: Vec<u64> = ended.iter().filter_map(|task| task.seq).collect();
        assert_eq!(seqs, (1..=u64::from(batch.counts.ended())).collect::<Vec<_>>());
        ended.retain(|task| task.status == TaskStatus::Completed);
        assert_eq!(ended.len(), batch.counts.completed as usize);
        assert_eq!(batch.usage.cost.nanos(), COST * i64::from(batch.counts.completed));
        self.db.assert_balance(self.account, 100_000 - COST * i64::from(batch.counts.completed)).await;
        self.db.assert_clean().await;
    }
}

async fn run(db: &Db, seed: u64) {
    let account = db.account(100_000).await;
    let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
    db.lease(node, Purse::Balance(account), 1_000).await;
    let new = db.new_file_batch(account, Priority::Low);
    let batch = new.id;
    db.store.openings().create_batch(new).await.unwrap();
    let committer = db.committer(node);
    let rng = StdRng::seed_from_u64(seed);
    let mut run = Run { db, rng, account, batch, node, committer, claimed: Vec::new() };
    let mut steps = 0;
    while !run.row().await.status.is_final() {
        run.step().await;
        steps += 1;
        assert!(steps < 5_000, "seed {seed}: the batch does not end");
        if steps % 50 == 0 {
            run.check().await;
        }
    }
    run.check().await;
    let batch = run.row().await;
    if batch.counts.total > 0 {
        assert_eq!(batch.counts.left(), 0);
        let tasks = db.store.batch_rows().tasks(batch.id, 0, LINES + 1).await.unwrap();
        let names: BTreeSet<String> = tasks.iter().map(|task| task.custom_id.clone()).collect();
        assert_eq!((tasks.len(), names.len()), (LINES as usize, LINES as usize), "seed {seed}");
    }
    // Nothing stays held.
    db.store.nodes().leave(run.node).await.unwrap();
    assert_eq!(db.assert_clean().await.leased_nanos, 0);
}

both! {
    async fn every_line_ends_once_and_only_completed_ones_are_charged(db) {
        for seed in 0..20 {
            run(db, seed).await;
        }
    }
}
