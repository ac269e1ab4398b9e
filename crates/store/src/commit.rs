//! Holds: the group commit. Callers hand their settlements to one writer, which commits what has gathered and then
//! wakes them all: one `fsync` serves many.

pub(crate) mod write;

use std::time::Duration;

use batchin_tasks::Tasks;
use metrics::{counter, histogram};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{NodeIdentity, Settlement, Store, StoreError};

/// Settlements that may wait for the writer: as many as requests can be in flight, so that it never refuses one that
/// was admitted.
const QUEUE_LEN: usize = 16_384;
/// The most in one transaction: enough to hide the disk, few enough that nobody waits for somebody else's thousand.
const GROUP_MAX: usize = 512;
/// First pause before a failed group is tried again; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a settlement did not become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The node's epoch is over; the usage is ours to bear.
    #[error("this node's epoch has ended")]
    Fenced,
    /// The task was claimed again, cancelled or finished; nothing was charged.
    #[error("the task's claim is out of date")]
    StaleTask,
    /// The database could not be reached in time, or refused the entry.
    #[error("the settlement could not be stored")]
    Unavailable,
}

/// How the writer behaves.
#[derive(Clone, Copy, Debug)]
pub struct CommitterOptions {
    /// How long a group is tried again before its callers are told that it failed; the node's lease is the natural value,
    /// since a node that cannot renew must fall silent anyway.
    pub give_up_after: Duration,
}

type Job = (Settlement, oneshot::Sender<Result<(), CommitError>>);

/// The way to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Job>,
    close: CancellationToken,
}

impl Committer {
    /// Starts the writer for one epoch of a node.
    pub fn start(store: Store, node: NodeIdentity, options: CommitterOptions, tasks: &Tasks) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LEN);
        let close = CancellationToken::new();
        let writer = Writer { store, node, options };
        let closing = close.clone();
        tasks.spawn("group_commit", move |_| writer.run(jobs, closing));
        Self { queue, close }
    }

    /// Hands in a settlement and waits until it is durable. Dropping the future after it was handed in does not take
    /// it back.
    pub async fn commit(&self, settlement: Settlement) -> Result<(), CommitError> {
        self.submit(settlement).await?.await.unwrap_or(Err(CommitError::Unavailable))
    }

    /// Hands in a settlement; the receiver hears when it is durable.
    pub async fn submit(
        &self,
        settlement: Settlement,
    ) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let (done, wait) = oneshot::channel();
        self.queue.send((settlement, done)).await.map_err(|_| CommitError::Unavailable)?;
        Ok(wait)
    }

    /// No more settlements: the writer commits what it has and ends.
    pub fn close(&self) {
        self.close.cancel();
    }
}

struct Writer {
    store: Store,
    node: NodeIdentity,
    options: CommitterOptions,
}

impl Writer {
    async fn run(self, mut jobs: mpsc::Receiver<Job>, close: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        loop {
            let received = tokio::select! {
                biased;
                received = jobs.recv_many(&mut group, GROUP_MAX) => received,
                () = close.cancelled(), if !jobs.is_closed() => { jobs.close(); continue }
            };
            if received == 0 {
                return;
            }
            self.settle(&mut group).await;
        }
    }

    /// Commits the group and tells its callers.
    async fn settle(&self, group: &mut Vec<Job>) {
        let began = Instant::now();
        let (settlements, callers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        histogram!("batchin_commit_group_size").record(u32::try_from(settlements.len()).unwrap_or(u32::MAX));
        let results = self.until_done(settlements).await;
        histogram!("batchin_commit_seconds").record(began.elapsed().as_secs_f64());
        for (result, caller) in results.into_iter().zip(callers) {
            if let Err(cause) = result {
                counter!("batchin_commit_failures_total", "reason" => reason(cause)).increment(1);
            }
            // A caller that went away has its charge all the same.
            let _ = caller.send(result);
        }
    }

    async fn until_done(&self, settlements: Vec<Settlement>) -> Vec<Result<(), CommitError>> {
        let began = Instant::now();
        let (mut pause, mut unsure) = (RETRY_PAUSE, false);
        loop {
            match write::group(&self.store, self.node, &settlements, unsure).await {
                Ok(results) => return results,
                Err(cause) if cause.is_passing() && began.elapsed() < self.options.give_up_after => {
                    warn!(error = &cause as &dyn std::error::Error, "a group of {} is tried again", settlements.len());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    unsure = true;
                }
                Err(cause) => return self.one_by_one(settlements, &cause).await,
            }
        }
    }

    /// One entry that the database refuses must not take its group down with it.
    async fn one_by_one(&self, settlements: Vec<Settlement>, cause: &StoreError) -> Vec<Result<(), CommitError>> {
        error!(error = cause as &dyn std::error::Error, "a group of {} was refused", settlements.len());
        let mut results = Vec::with_capacity(settlements.len());
        for settlement in &settlements {
            let alone = write::group(&self.store, self.node, std::slice::from_ref(settlement), true).await;
            results.push(match alone {
                Ok(mut one) => one.pop().unwrap_or(Err(CommitError::Unavailable)),
                Err(cause) => {
                    error!(error = &cause as &dyn std::error::Error, "a settlement was refused");
                    Err(CommitError::Unavailable)
                }
            });
        }
        results
    }
}

const fn reason(cause: CommitError) -> &'static str {
    match cause {
        CommitError::Fenced => "fenced",
        CommitError::StaleTask => "stale_task",
        CommitError::Unavailable => "unavailable",
    }
}
