//! Holds: what a node does for a batch beside running its tasks: reading its file, making tasks of it, stopping what is
//! left, closing it.
//!
//! One node at a time has a batch's chore: its steward. Each verb here is refused once the chore is another's or done,
//! and a node that is given up gives its chores back with everything else.

use std::{ops::Range, time::Duration};

use batchin_db::{Dialect, Rerun, Source, Value, WriteTx, exactly, retried};
use batchin_domain::{
    AccountId, BatchId, BatchStatus, Chore, Ending, FileId, TaskId, TaskStatus, Timestamp, batch::TaskCounts,
};
use uuid::Uuid;

use crate::{
    BatchRow, Chores, FencedError, NewTask, NodeIdentity, StoreError,
    fence::still,
    queue::batches::lock_batch,
    queue::endings::{begin_to_close, count, end_batch, lock_unended, stop, stopped},
    queue::openings::{Inserted, Place, insert_tasks},
    stored::to_i64,
};

/// Why a chore's verb was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChoreError {
    /// The chore is done, or another node's: whoever has it goes on with it.
    #[error("the batch's chore is no longer this node's")]
    Lost,
    /// The store failed.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

/// The files of a batch that ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchFiles {
    /// Its results.
    pub output: Option<FileId>,
    /// Its errors.
    pub error: Option<FileId>,
}

/// Where a task's result lies in the blob that it was moved into.
#[derive(Clone, Copy, Debug)]
pub struct MovedResult {
    /// Whose it is.
    pub task: TaskId,
    /// Where its body begins, in bytes.
    pub offset: u64,
    /// How long its body is, in bytes.
    pub len: u64,
    /// Bytes of its output line before the body.
    pub head: u64,
}

/// Lines of a batch's file that become tasks together.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// How many lines there were before.
    pub from: u32,
    /// How much of the file has been used up with these, in bytes.
    pub bytes: u64,
    /// What becomes of them.
    pub tasks: &'a [NewTask],
}

impl Chores {
    /// Takes a batch that needs something done and that no node cares for, of another account than `full`: those whose
    /// chore has failed come after the others, and not before it is their time again; else the oldest.
    pub async fn take_chore(
        &self,
        node: NodeIdentity,
        full: Option<AccountId>,
        now: Timestamp,
    ) -> Result<Option<BatchRow>, FencedError> {
        let waiting = "SELECT id FROM batch WHERE chore <> 0 AND steward IS NULL AND chore_after <= $1 \
                       AND account_id <> $2 ORDER BY chore_tries, id LIMIT 1";
        // Ids have a version, so that this is nobody's.
        let full = full.map_or_else(Uuid::nil, AccountId::uuid);
        let values = || -> [Value; 2] { [now.micros().into(), full.into()] };
        let run = retried(Rerun::Harmless, || async {
            // Most looks find nothing; they take no write lock.
            if self.db.one(waiting, values()).await?.is_none() {
                return Ok(Some(None));
            }
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return Ok(None);
            }
            let Some(row) = tx.one(format!("{waiting}{}", tx.dialect.skip_locked()), values()).await? else {
                return Ok(Some(None));
            };
            let id = BatchId::new(row.get("id")?);
            let batch = lock_batch(&tx, id).await?;
            let touched = tx
                .run("UPDATE batch SET steward = $2 WHERE id = $1", [id.uuid().into(), node.id.uuid().into()])
                .await?;
            exactly(touched, 1, "batch")?;
            tx.commit().await?;
            Ok(Some(batch))
        });
        run.await.map_err(FencedError::Store)?.ok_or(FencedError::Fenced)
    }

    /// The batches whose chores are this node's: those that it does not know of were taken, or given back, in a
    /// transaction whose end it never heard of.
    pub async fn chores_of(&self, node: NodeIdentity) -> Result<Vec<BatchId>, StoreError> {
        let rows =
            self.db.all("SELECT id FROM batch WHERE chore <> 0 AND steward = $1", [node.id.uuid().into()]).await?;
        rows.iter().map(|row| Ok(BatchId::new(row.get("id")?))).collect()
    }

    /// Gives a chore back undone, so that this node or another takes it again.
    pub async fn leave_chore(&self, node: NodeIdentity, id: BatchId) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "UPDATE batch SET steward = NULL WHERE id = $1 AND steward = $2",
                [id.uuid().into(), node.id.uuid().into()],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Gives a chore back that failed, to be tried again after `pause`, which is told how often it has failed by now.
    /// Returns that number; `None` if the chore is another's by now.
    pub async fn fail_chore(
        &self,
        node: NodeIdentity,
        id: BatchId,
        pause: impl Fn(u32) -> Duration,
        now: Timestamp,
    ) -> Result<Option<u32>, StoreError> {
        retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let ours = "SELECT chore_tries FROM batch WHERE id = $1 AND steward = $2";
            let row =
                tx.one(format!("{ours}{}", tx.dialect.for_update()), [id.uuid().into(), node.id.uuid().into()]).await?;
            let Some(row) = row else { return tx.leave().await.map(|()| None) };
            let tries = row.get::<i64>("chore_tries")?.saturating_add(1);
            let counted = u32::try_from(tries).unwrap_or(u32::MAX);
            let after = now.after(pause(counted)).micros();
            let touched = tx
                .run(
                    "UPDATE batch SET steward = NULL, chore_tries = $2, chore_after = $3 WHERE id = $1",
                    [id.uuid().into(), tries.into(), after.into()],
                )
                .await?;
            exactly(touched, 1, "batch")?;
            tx.commit().await?;
            Ok(Some(counted))
        })
        .await
    }

    /// The file was read and is at fault: nothing of it runs. `faults` is a JSON array.
    pub async fn reject_batch(
        &self,
        node: NodeIdentity,
        id: BatchId,
        faults: &str,
        now: Timestamp,
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Reject(faults, now)).await
    }

    /// Every line of the file has been checked: there are `total`, all for `model` if that is given.
    pub async fn accept_batch(
        &self,
        node: NodeIdentity,
        id: BatchId,
        (total, model): (u32, Option<&str>),
        now: Timestamp,
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Accept(total, model, now)).await
    }

    /// How many lines are best made into tasks at once: enough to hide the disk. On SQLite few enough that no request waits
    /// long behind them, and on PostgreSQL none does.
    pub fn piece(&self) -> usize {
        match self.db.dialect() {
            Dialect::Sqlite => 512,
            Dialect::Postgres => 2_048,
        }
    }

    /// Makes tasks of the next lines. Of a batch that is being stopped they have ended without having run.
    pub async fn load_tasks(
        &self,
        node: NodeIdentity,
        id: BatchId,
        piece: Piece<'_>,
        now: Timestamp,
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Load(piece, now)).await
    }

    /// Ends what has not ended among the tasks with these indices; what runs is fenced off. When none is left, the batch
    /// is to be closed, which is another chore.
    pub async fn stop_tasks(
        &self,
        node: NodeIdentity,
        id: BatchId,
        indices: Range<u64>,
        now: Timestamp,
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Stop(indices, now)).await
    }

    /// Results of a batch that is to be closed lie in this blob from now on.
    pub async fn move_results(
        &self,
        node: NodeIdentity,
        id: BatchId,
        (blob, results): (&str, &[MovedResult]),
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Move(blob, results)).await
    }

    /// Ends a batch whose every task has ended. What came of it is kept until `sweep_at`.
    pub async fn close_batch(
        &self,
        node: NodeIdentity,
        id: BatchId,
        files: BatchFiles,
        (sweep_at, now): (Timestamp, Timestamp),
    ) -> Result<(), ChoreError> {
        self.step((node, id), Step::Close(files, sweep_at, now)).await
    }

    /// Takes a step of a chore as one transaction of this node.
    async fn step(&self, (node, id): (NodeIdentity, BatchId), step: Step<'_>) -> Result<(), ChoreError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return tx.leave().await.map(|()| false);
            }
            // Tasks before their batch: the order in which every verb locks.
            let (mut tasks, mut ahead) = (Vec::new(), false);
            match &step {
                Step::Stop(indices, _) => tasks = lock_unended(&tx, id, indices.clone()).await?,
                Step::Load(piece, now) => ahead = load_ahead(&tx, (node, id), *piece, *now).await?,
                Step::Reject(..) | Step::Accept(..) | Step::Move(..) | Step::Close(..) => {}
            }
            let Some(batch) = charged_with(&tx, node, id, step.chore()).await? else {
                return tx.leave().await.map(|()| false);
            };
            match &step {
                Step::Reject(faults, now) => reject(&tx, &batch, faults, *now).await?,
                Step::Accept(total, model, now) => accept(&tx, id, (*total, *model), *now).await?,
                Step::Load(piece, _) if batch.loaded != piece.from || !(ahead || batch.ending.is_some()) => {
                    return tx.leave().await.map(|()| false);
                }
                Step::Load(piece, now) => load(&tx, &batch, (*piece, ahead), *now).await?,
                Step::Stop(_, now) => match batch.ending {
                    Some(ending) => stop(&tx, &batch, ending, (&tasks, *now)).await?,
                    None => return tx.leave().await.map(|()| false),
                },
                Step::Move(blob, results) => move_results(&tx, blob, results).await?,
                Step::Close(files, sweep_at, now) => close(&tx, &batch, (*files, *sweep_at), *now).await?,
            }
            tx.commit().await?;
            Ok(true)
        });
        match run.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ChoreError::Lost),
            Err(cause) => Err(ChoreError::Store(cause)),
        }
    }
}

/// One transaction of a chore.
enum Step<'a> {
    Reject(&'a str, Timestamp),
    Accept(u32, Option<&'a str>, Timestamp),
    Load(Piece<'a>, Timestamp),
    Stop(Range<u64>, Timestamp),
    Move(&'a str, &'a [MovedResult]),
    /// Until when what came of it is kept, and now.
    Close(BatchFiles, Timestamp, Timestamp),
}

impl Step<'_> {
    const fn chore(&self) -> Chore {
        match self {
            Self::Reject(..) | Self::Accept(..) => Chore::Read,
            Self::Load(..) => Chore::Load,
            Self::Stop(..) => Chore::Stop,
            Self::Move(..) | Self::Close(..) => Chore::Close,
        }
    }
}

async fn reject(tx: &WriteTx, batch: &BatchRow, faults: &str, now: Timestamp) -> Result<(), StoreError> {
    tx.run("UPDATE batch SET faults = $2 WHERE id = $1", [batch.id.uuid().into(), faults.into()]).await?;
    // Whoever cancelled it meanwhile has been told that it is cancelled.
    end_batch(tx, batch.id, batch.ending.map_or(BatchStatus::Failed, Ending::of_batch), now).await
}

async fn accept(
    tx: &WriteTx,
    id: BatchId,
    (total, model): (u32, Option<&str>),
    now: Timestamp,
) -> Result<(), StoreError> {
    let touched = tx
        .run(
            // One that was cancelled meanwhile stays on its way to that end: its lines become tasks that have ended.
            "UPDATE batch SET status = CASE WHEN ending IS NULL THEN $2 ELSE status END, chore = $3, total = $4, \
             model = $5, started_at = $6, chore_tries = 0 WHERE id = $1",
            [
                id.uuid().into(),
                BatchStatus::InProgress.code().into(),
                Chore::Load.code().into(),
                i64::from(total).into(),
                model.map(str::to_owned).into(),
                now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "batch")
}

/// Adds the tasks of a batch that goes on before it is locked: the group commits that count its ends wait for whoever has the
/// lock. Whether they were added. Where the batch is stopped meanwhile, its next chore ends them.
async fn load_ahead(
    tx: &WriteTx,
    (node, id): (NodeIdentity, BatchId),
    piece: Piece<'_>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // The node is locked and keeps its chores meanwhile.
    let sql = "SELECT account_id FROM batch WHERE id = $1 AND steward = $2 AND loaded = $3 AND ending IS NULL";
    let values: [Value; 3] = [id.uuid().into(), node.id.uuid().into(), i64::from(piece.from).into()];
    let Some(row) = tx.one(sql, values).await? else { return Ok(false) };
    let account = AccountId::new(row.get("account_id")?);
    let place = Place { batch: id, account, first: u64::from(piece.from), state: Inserted::Waiting, now };
    insert_tasks(tx, place, piece.tasks).await?;
    Ok(true)
}

async fn load(
    tx: &WriteTx,
    batch: &BatchRow,
    (piece, is_ahead): (Piece<'_>, bool),
    now: Timestamp,
) -> Result<(), StoreError> {
    let more = u32::try_from(piece.tasks.len()).unwrap_or(u32::MAX);
    let loaded = batch.loaded.saturating_add(more);
    let mut ended = TaskCounts::default();
    if let Some(ending) = batch.ending.filter(|_| !is_ahead) {
        let state = Inserted::Ended(ending.of_task(), u64::from(batch.counts.ended()) + 1);
        let place = Place { batch: batch.id, account: batch.account, first: u64::from(batch.loaded), state, now };
        insert_tasks(tx, place, piece.tasks).await?;
        ended = stopped(ending, more);
    }
    let chore = match (loaded < batch.counts.total, batch.ending) {
        (true, _) => Chore::Load,
        (false, Some(_)) => Chore::Stop,
        (false, None) => Chore::None,
    };
    tx.run(
        "UPDATE batch SET loaded = $2, loaded_bytes = $3, chore = $4, chore_tries = 0, \
         steward = CASE WHEN $4 = chore THEN steward ELSE NULL END WHERE id = $1",
        [batch.id.uuid().into(), i64::from(loaded).into(), to_i64(piece.bytes).into(), chore.code().into()],
    )
    .await?;
    count(tx, batch.id, ended).await?;
    let all_ended = loaded == batch.counts.total && batch.counts.plus(ended).left() == 0;
    if all_ended { begin_to_close(tx, batch.id, now).await } else { Ok(()) }
}

/// Nothing else changes the rows of tasks that have ended.
async fn move_results(tx: &WriteTx, blob: &str, results: &[MovedResult]) -> Result<(), StoreError> {
    const COLUMNS: usize = 6;
    let values = results.iter().flat_map(|moved| {
        let MovedResult { task, offset, len, head } = *moved;
        [
            task.uuid().into(),
            blob.into(),
            to_i64(offset).into(),
            to_i64(len).into(),
            to_i64(head).into(),
            i64::from(TaskStatus::Completed.code()).into(),
        ]
    });
    let sql = |source: &Source| match source {
        Source::One => "UPDATE task SET result_blob = $2, result_offset = $3, result_len = $4, result_head = $5 \
                        WHERE id = $1 AND state = $6"
            .to_owned(),
        Source::Many(rows) => format!(
            "WITH v(id, result_blob, result_offset, result_len, result_head, state) AS ({rows}) UPDATE task SET \
             result_blob = v.result_blob, result_offset = v.result_offset, result_len = v.result_len, \
             result_head = v.result_head FROM v WHERE task.id = v.id AND task.state = v.state"
        ),
    };
    exactly(tx.run_over(values.collect(), COLUMNS, sql).await?, results.len() as u64, "task")
}

async fn close(
    tx: &WriteTx,
    batch: &BatchRow,
    (files, sweep_at): (BatchFiles, Timestamp),
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.run(
        "UPDATE batch SET output_file = $2, error_file = $3, sweep_at = $4 WHERE id = $1",
        [
            batch.id.uuid().into(),
            files.output.map(FileId::uuid).into(),
            files.error.map(FileId::uuid).into(),
            sweep_at.micros().into(),
        ],
    )
    .await?;
    end_batch(tx, batch.id, batch.counts.outcome(batch.ending, batch.inline), now).await
}

/// The batch, locked, if this node is the one that is to do this for it.
async fn charged_with(
    tx: &WriteTx,
    node: NodeIdentity,
    id: BatchId,
    chore: Chore,
) -> Result<Option<BatchRow>, StoreError> {
    let batch = lock_batch(tx, id).await?.filter(|batch| batch.chore == chore);
    let steward = "SELECT 1 AS one FROM batch WHERE id = $1 AND steward = $2";
    let ours = tx.one(steward, [id.uuid().into(), node.id.uuid().into()]).await?;
    Ok(batch.filter(|_| ours.is_some()))
}
