//! Holds: what has to be done for batches beside running their tasks, found and done on this node.
//!
//! A batch's chore is one node's at a time; whatever breaks off is taken up by whoever comes next.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, BatchId, Chore, Ending};
use batchin_files::{BlobError, Blobs, Files};
use batchin_gateway::Gateway;
use batchin_scheduler::must_hurry;
use batchin_store::{BatchRow, BatchRows, ChoreError, Chores, Endings, FencedError, NodeIdentity, StoreError};
use batchin_tasks::Tasks;
use metrics::counter;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    LineFault,
    closing::{CloseError, Closing},
    input::InputError,
    loading::{LoadError, load},
    moving::MoveError,
    reading::{Verdict, read},
    results::{ResultWriter, folder_of},
};

/// Between two looks for chores while nothing wakes the steward.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks for windows that pass, batches that must hurry, what is to be forgotten, and chores that this node
/// has without knowing.
const UPKEEP: Duration = Duration::from_secs(1);
/// Chores done at once on a node: a file of a million lines keeps no small batch waiting, and the database breathes.
const CHORES_AT_ONCE: usize = 4;
/// Of these, what one account may have: the rest are done at once however many files it hands in.
const CHORES_OF_ACCOUNT: usize = 3;
/// Before a chore that failed is tried again; doubles with each failure, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
/// Long enough that a chore that always fails costs nothing, short enough that a repair shows by itself.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Batches looked at in one go.
const PAGE: u32 = 256;
/// Tasks stopped in one transaction.
const STOP_PIECE: u64 = 1_000;
/// Tasks forgotten in one transaction.
const SWEEP_PIECE: u32 = 1_000;

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
enum StewardError {
    /// It is done, or another node's.
    #[error("the chore is no longer this node's")]
    Lost,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The file could not be read.
    #[error("the file could not be read")]
    Input(#[source] InputError),
    /// The file could not be loaded.
    #[error("the file could not be loaded")]
    Load(#[source] LoadError),
    /// The batch's files could not be put together.
    #[error("the batch's files could not be put together")]
    Close(#[source] CloseError),
    /// Blobs could not be forgotten.
    #[error("blobs could not be deleted")]
    Blob(#[source] BlobError),
}

impl From<ChoreError> for StewardError {
    fn from(cause: ChoreError) -> Self {
        match cause {
            ChoreError::Lost => Self::Lost,
            ChoreError::Store(cause) => Self::Store(cause),
        }
    }
}

/// Does the chores of batches on this node.
pub(crate) struct Steward {
    parts: StewardParts,
    /// Its own group, shut down before the gateway's.
    runs: Tasks,
    /// Something may have to be done.
    wake: Arc<Notify>,
    /// Whose chores are being done. std mutex: held for look-ups.
    busy: Mutex<HashMap<BatchId, AccountId>>,
}

/// What a steward works with.
pub(crate) struct StewardParts {
    pub gateway: Gateway,
    pub chores: Chores,
    pub endings: Endings,
    pub rows: BatchRows,
    pub blobs: Blobs,
    pub files: Files,
    pub results: ResultWriter,
    /// How long what came of a batch is kept after its end.
    pub retention: Duration,
}

impl Steward {
    /// Starts to look for chores.
    pub(crate) fn start(parts: StewardParts, wake: Arc<Notify>, tasks: &Tasks) {
        let steward = Arc::new(Self { parts, runs: tasks.clone(), wake, busy: Mutex::default() });
        let keeping = Arc::clone(&steward);
        tasks.spawn("batch_upkeep", move |stop| async move { keeping.keep(stop).await });
        tasks.spawn("batch_steward", move |stop| steward.run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut compared = Instant::now();
        while !stop.is_cancelled() {
            if compared.elapsed() >= UPKEEP {
                self.leave_unknown().await;
                compared = Instant::now();
            }
            while self.lock().len() < CHORES_AT_ONCE && self.take(&stop).await {}
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                _ = poll.tick() => {}
            }
        }
    }

    /// Gives back the chores that this node has without knowing: it never heard that it took them, or that it still has
    /// them. Nothing else takes any meanwhile.
    async fn leave_unknown(&self) {
        let node = self.parts.gateway.epoch().identity;
        let busy: HashSet<BatchId> = self.lock().keys().copied().collect();
        match self.parts.chores.chores_of(node).await {
            Ok(ours) => {
                for id in ours.into_iter().filter(|id| !busy.contains(id)) {
                    self.leave(node, id).await;
                }
            }
            Err(cause) => warn!(error = &cause as &dyn std::error::Error, "this node's chores could not be read"),
        }
    }

    /// Begins one chore, if there is one.
    async fn take(self: &Arc<Self>, stop: &CancellationToken) -> bool {
        let node = self.parts.gateway.epoch().identity;
        let now = self.parts.gateway.clock().now();
        let batch = match self.parts.chores.take_chore(node, self.full(), now).await {
            Ok(Some(batch)) => batch,
            Ok(None) | Err(FencedError::Fenced) => return false,
            Err(FencedError::Store(cause)) => {
                warn!(error = &cause as &dyn std::error::Error, "chores could not be looked for");
                return false;
            }
        };
        batchin_faults::point("chore.taken");
        self.lock().insert(batch.id, batch.account);
        let (steward, stop) = (Arc::clone(self), stop.clone());
        self.runs.spawn("batch_chore", move |_| async move {
            let (id, chore) = (batch.id, batch.chore);
            match stop.run_until_cancelled(steward.until_done(node, batch)).await {
                Some(Ok(())) => {}
                Some(Err(cause)) => steward.failed(node, (id, chore), &cause).await,
                None => steward.leave(node, id).await,
            }
            steward.lock().remove(&id);
            steward.wake.notify_one();
        });
        true
    }

    /// The account that has all the chores that it may have here.
    fn full(&self) -> Option<AccountId> {
        let busy = self.lock();
        busy.values().find(|account| busy.values().filter(|one| one == account).count() >= CHORES_OF_ACCOUNT).copied()
    }

    /// Lets a chore that failed step behind the others.
    async fn failed(&self, node: NodeIdentity, (id, chore): (BatchId, Chore), cause: &StewardError) {
        counter!("batchin_chore_failures_total", "chore" => chore.name()).increment(1);
        let pause = |tries: u32| PAUSE.saturating_mul(1 << tries.clamp(1, 16).saturating_sub(1)).min(PAUSE_MAX);
        let now = self.parts.gateway.clock().now();
        match self.parts.chores.fail_chore(node, id, pause, now).await {
            Ok(tries) => {
                let tries = tries.unwrap_or(0);
                warn!(
                    batch.id = %id,
                    chore = chore.name(),
                    failures = tries,
                    error = cause as &dyn std::error::Error,
                    "a chore of batch {id} failed and is tried again in {:?}",
                    pause(tries)
                );
            }
            Err(lost) => {
                warn!(batch.id = %id, error = cause as &dyn std::error::Error, "a chore of batch {id} failed");
                // It is given back at the next look at what this node has.
                warn!(error = &lost as &dyn std::error::Error, "a chore could not be given back");
            }
        }
    }

    async fn leave(&self, node: NodeIdentity, id: BatchId) {
        if let Err(cause) = self.parts.chores.leave_chore(node, id).await {
            // It is given back at the next look at what this node has.
            warn!(error = &cause as &dyn std::error::Error, "a chore could not be given back");
        }
    }

    /// Does the chore. One that turns out to be another's by now is done as far as this node is concerned.
    async fn until_done(&self, node: NodeIdentity, batch: BatchRow) -> Result<(), StewardError> {
        let done = match batch.chore {
            Chore::None => Ok(()),
            Chore::Read => self.read(node, batch).await,
            Chore::Load => self.load(node, &batch).await,
            Chore::Stop => self.stop(node, &batch).await,
            Chore::Close => self.close(node, &batch).await,
        };
        if matches!(done, Err(StewardError::Lost)) { Ok(()) } else { done }
    }

    async fn read(&self, node: NodeIdentity, batch: BatchRow) -> Result<(), StewardError> {
        let id = batch.id;
        let verdict = match read(&self.parts.gateway, &self.parts.blobs, (&batch).into(), |_| ()).await {
            Ok(verdict) => verdict,
            Err(cause) => return Err(StewardError::Input(cause)),
        };
        let now = self.parts.gateway.clock().now();
        match verdict {
            Verdict::Bad(faults) => {
                info!(batch.id = %id, faults = faults.len(), "batch {id} is refused: its file has {} fault(s)", faults.len());
                self.parts.chores.reject_batch(node, id, &faults_json(&faults), now).await?;
                Ok(())
            }
            Verdict::Good { total, model } => {
                info!(batch.id = %id, tasks = total, "batch {id} accepted with {total} tasks");
                self.parts.chores.accept_batch(node, id, (total, model.as_deref()), now).await?;
                batchin_faults::point("batch.accepted");
                let counts = batchin_domain::batch::TaskCounts { total, ..batch.counts };
                self.load(node, &BatchRow { counts, ..batch }).await
            }
        }
    }

    async fn load(&self, node: NodeIdentity, batch: &BatchRow) -> Result<(), StewardError> {
        let clock = || self.parts.gateway.clock().now();
        match load((&self.parts.gateway, &self.parts.chores), &self.parts.blobs, node, batch, clock).await {
            Ok(()) => Ok(()),
            Err(LoadError::Chore(cause)) => Err(cause.into()),
            Err(cause) => Err(StewardError::Load(cause)),
        }
    }

    async fn stop(&self, node: NodeIdentity, batch: &BatchRow) -> Result<(), StewardError> {
        let total = u64::from(batch.counts.total);
        let mut from = 0;
        while from < total {
            let to = from + STOP_PIECE;
            self.parts.chores.stop_tasks(node, batch.id, from..to, self.parts.gateway.clock().now()).await?;
            from = to;
        }
        Ok(())
    }

    async fn close(&self, node: NodeIdentity, batch: &BatchRow) -> Result<(), StewardError> {
        let StewardParts { gateway, chores, rows, blobs, files, results, retention, .. } = &self.parts;
        let (ids, retention) = (gateway.ids(), *retention);
        let closing = Closing { rows, chores, files, blobs, results, ids, retention };
        let files = match closing.files_of(node, batch).await {
            Ok(files) => files,
            Err(CloseError::Move(MoveError::Chore(cause))) => return Err(cause.into()),
            Err(cause) => return Err(StewardError::Close(cause)),
        };
        batchin_faults::point("batch.filed");
        let now = self.parts.gateway.clock().now();
        // The results stay for as long as a file lists them, and a little, since that file was begun just now.
        let sweep_at = now.after(closing.kept(batch).max(retention) + UPKEEP);
        chores.close_batch(node, batch.id, files, (sweep_at, now)).await?;
        batchin_faults::point("batch.closed");
        let id = batch.id;
        info!(batch.id = %id, completed = batch.counts.completed, failed = batch.counts.failed, "batch {id} has ended");
        Ok(())
    }

    /// Looks after what time brings.
    async fn keep(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(cause)) = stop.run_until_cancelled(self.upkeep()).await {
                warn!(error = &cause as &dyn std::error::Error, "batches could not be looked after");
            }
        }
    }

    async fn upkeep(&self) -> Result<(), StewardError> {
        let now = self.parts.gateway.clock().now();
        for id in self.parts.endings.overdue_batches(PAGE, now).await.map_err(StewardError::Store)? {
            let stopped = self.parts.endings.stop_batch(id, Ending::Expired, now).await;
            self.each(id, stopped.map(drop).map_err(StewardError::Store));
            self.wake.notify_one();
        }
        let low = self.parts.chores.promotable(PAGE).await.map_err(StewardError::Store)?;
        let late = low.iter().filter(|batch| must_hurry(batch.created_at, batch.expires_at, batch.counts, now));
        let late: Vec<BatchId> = late.map(|batch| batch.batch).collect();
        if !late.is_empty() {
            info!("{} batch(es) would miss their windows and run as high", late.len());
            self.parts.chores.promote(&late).await.map_err(StewardError::Store)?;
        }
        for id in self.parts.chores.batches_to_sweep(PAGE, now).await.map_err(StewardError::Store)? {
            self.each(id, self.forget(id).await);
        }
        Ok(())
    }

    /// What fails for one batch keeps no other from being looked after.
    fn each(&self, id: BatchId, done: Result<(), StewardError>) {
        if let Err(cause) = done {
            counter!("batchin_chore_failures_total", "chore" => "upkeep").increment(1);
            warn!(batch.id = %id, error = &cause as &dyn std::error::Error, "batch {id} could not be looked after");
        }
    }

    /// Forgets what came of a batch.
    async fn forget(&self, id: BatchId) -> Result<(), StewardError> {
        while self.parts.chores.sweep_tasks(id, SWEEP_PIECE).await.map_err(StewardError::Store)? > 0 {}
        for folder in [folder_of(id), format!("batches/{id}")] {
            self.parts.blobs.delete_folder(&folder).await.map_err(StewardError::Blob)?;
        }
        self.parts.chores.swept(id).await.map_err(StewardError::Store)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BatchId, AccountId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn faults_json(faults: &[LineFault]) -> String {
    // Texts and numbers always serialise.
    serde_json::to_string(faults).unwrap_or_default()
}
