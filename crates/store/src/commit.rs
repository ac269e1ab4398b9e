//! Holds: the group commit. Callers hand their settlements to one writer, which commits what has gathered and then
//! wakes them all: one `fsync` serves many.

mod late;
pub(crate) mod settlement;
mod tasks;
pub(crate) mod write;

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use batchin_db::Db;
use batchin_tasks::Tasks;
use metrics::{counter, histogram};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{NodeIdentity, Settlement, StoreError};

/// What requests cost, written once they are over. Held by the gateway's epoch.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) db: Db,
}

/// Settlements that may wait for the writer: as many as requests can be in flight, so that it never refuses one that
/// was admitted.
const QUEUE_LEN: usize = 16_384;
/// The most in one transaction: enough to hide the disk, few enough that nobody waits for somebody else's thousand.
const GROUP_MAX: usize = 512;
/// Turns of the runtime that a group waits for more: what is about to be settled shares one commit. A turn is as long as
/// there is work, so that a server that is idle waits for microseconds and a busy one for what it is working on.
const GATHER_TURNS: usize = 16;
/// Turns in a row that bring nothing, after which nothing is about to come: an answer takes one to be received, one to
/// be read and one to be handed in.
const QUIET_TURNS: usize = 3;
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
    /// The database could not be reached in time; the entry may or may not be there.
    #[error("the settlement could not be stored")]
    Unavailable,
    /// The database refused the entry itself, and would again.
    #[error("the database refused the settlement")]
    Refused,
}

/// Hears of every settlement that did not become durable, whether or not its caller still waits. It must not block.
pub type OnFailure = Arc<dyn Fn(&Settlement, CommitError) + Send + Sync>;

/// How the writer behaves.
#[derive(Clone)]
pub struct CommitterOptions {
    /// How long a group is tried again before its callers are told that it failed; the node's lease is the natural value,
    /// since a node that cannot renew must fall silent anyway.
    pub give_up_after: Duration,
    /// What else happens to settlements that fail.
    pub on_failure: OnFailure,
}

/// Boxed, because it is moved through a queue and two lists.
type Job = (Box<Settlement>, oneshot::Sender<Result<(), CommitError>>);

/// The way to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Job>,
    close: CancellationToken,
    on_failure: OnFailure,
}

impl Committer {
    /// Starts the writer for one epoch of a node.
    pub fn start(ledger: Ledger, node: NodeIdentity, options: CommitterOptions, tasks: &Tasks) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LEN);
        let (close, on_failure) = (CancellationToken::new(), Arc::clone(&options.on_failure));
        let writer = Writer { ledger, node, options };
        let closing = close.clone();
        tasks.spawn("group_commit", move |_| writer.run(jobs, closing));
        Self { queue, close, on_failure }
    }

    /// Hands in a settlement, at once, and waits until it is durable. Dropping the future does not take it back.
    pub fn commit(&self, settlement: Settlement) -> impl Future<Output = Result<(), CommitError>> {
        let submitted = self.submit(settlement);
        async { submitted.await?.await.unwrap_or(Err(CommitError::Unavailable)) }
    }

    /// Hands in a settlement, at once where there is room; the receiver hears when it is durable.
    pub fn submit(
        &self,
        settlement: Settlement,
    ) -> impl Future<Output = Result<oneshot::Receiver<Result<(), CommitError>>, CommitError>> {
        let (done, wait) = oneshot::channel();
        let handed_in = self.queue.try_send((Box::new(settlement), done));
        async move {
            match handed_in {
                Ok(()) => Ok(wait),
                Err(mpsc::error::TrySendError::Full(job)) => match self.queue.send(job).await {
                    Ok(()) => Ok(wait),
                    Err(mpsc::error::SendError(job)) => Err(self.too_late(&job)),
                },
                Err(mpsc::error::TrySendError::Closed(job)) => Err(self.too_late(&job)),
            }
        }
    }

    /// Closed writers belong to epochs that have ended.
    fn too_late(&self, (settlement, _): &Job) -> CommitError {
        (self.on_failure)(settlement, CommitError::Fenced);
        CommitError::Fenced
    }

    /// Hands in a settlement if there is room for it; what can wait for the next one need not wait for room.
    pub fn try_submit(&self, settlement: Settlement) -> Option<oneshot::Receiver<Result<(), CommitError>>> {
        let (done, wait) = oneshot::channel();
        self.queue.try_send((Box::new(settlement), done)).ok().map(|()| wait)
    }

    /// No more settlements: the writer commits what it has and ends. What is handed in later is refused as fenced.
    pub fn close(&self) {
        self.close.cancel();
    }
}

struct Writer {
    ledger: Ledger,
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
            gather(&mut jobs, &mut group).await;
            self.settle(&mut group).await;
        }
    }

    /// Commits the group and tells its callers.
    async fn settle(&self, group: &mut Vec<Job>) {
        let began = Instant::now();
        let (settlements, callers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        histogram!("batchin_commit_group_size").record(u32::try_from(settlements.len()).unwrap_or(u32::MAX));
        batchin_faults::point("commit.gathered");
        let settlements: Arc<[Box<Settlement>]> = settlements.into();
        let results = self.until_done(Arc::clone(&settlements)).await;
        batchin_faults::point("commit.durable");
        histogram!("batchin_commit_seconds").record(began.elapsed().as_secs_f64());
        for ((result, settlement), caller) in results.into_iter().zip(&*settlements).zip(callers) {
            if let Err(cause) = result {
                counter!("batchin_commit_failures_total", "reason" => reason(cause)).increment(1);
                (self.options.on_failure)(settlement, cause);
            }
            // A caller that went away has its charge all the same.
            let _ = caller.send(result);
        }
    }

    async fn until_done(&self, settlements: Arc<[Box<Settlement>]>) -> Vec<Result<(), CommitError>> {
        let give_up_at = Instant::now() + self.options.give_up_after;
        match self.tried_again(&settlements, Before::Nothing, give_up_at).await {
            Ok(results) => results,
            Err(cause) if cause.is_passing() => {
                error!(error = &cause as &dyn Error, "a group of {} could not be stored", settlements.len());
                vec![Err(CommitError::Unavailable); settlements.len()]
            }
            Err(cause) => {
                error!(error = &cause as &dyn Error, "a group of {} was refused", settlements.len());
                self.one_by_one(&settlements, give_up_at).await
            }
        }
    }

    /// One entry that the database refuses must not take its group down with it.
    async fn one_by_one(&self, settlements: &[Box<Settlement>], give_up_at: Instant) -> Vec<Result<(), CommitError>> {
        let mut results = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let alone: Arc<[Box<Settlement>]> = Arc::new([settlement.clone()]);
            let alone = self.tried_again(&alone, Before::Perhaps, give_up_at).await;
            results.push(match alone {
                Ok(mut one) => one.pop().unwrap_or(Err(CommitError::Unavailable)),
                Err(cause) => {
                    error!(error = &cause as &dyn Error, "a settlement was refused");
                    Err(if cause.is_passing() { CommitError::Unavailable } else { CommitError::Refused })
                }
            });
        }
        results
    }

    /// Writes, and writes again while that fails in passing, until `give_up_at`.
    async fn tried_again(
        &self,
        settlements: &Arc<[Box<Settlement>]>,
        mut before: Before,
        give_up_at: Instant,
    ) -> Result<Vec<Result<(), CommitError>>, StoreError> {
        let mut pause = RETRY_PAUSE;
        loop {
            let cause = match write::group(&self.ledger.db, self.node, settlements, before).await {
                Err(cause) if cause.is_passing() && Instant::now() + pause < give_up_at => cause,
                done => return done,
            };
            warn!(error = &cause as &dyn Error, "a group of {} is tried again", settlements.len());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            before = Before::Perhaps;
        }
    }
}

/// Lets requests that are ready run, and adds what they hand in.
async fn gather(jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Job>) {
    let mut quiet = 0;
    for _ in 0..GATHER_TURNS {
        tokio::task::yield_now().await;
        let before = group.len();
        while group.len() < GROUP_MAX
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        quiet = if group.len() == before { quiet + 1 } else { 0 };
        if quiet == QUIET_TURNS {
            return;
        }
    }
}

/// Whether an earlier try may have been committed without our hearing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Perhaps,
}

const fn reason(cause: CommitError) -> &'static str {
    match cause {
        CommitError::Fenced => "fenced",
        CommitError::StaleTask => "stale_task",
        CommitError::Unavailable => "unavailable",
        CommitError::Refused => "refused",
    }
}
