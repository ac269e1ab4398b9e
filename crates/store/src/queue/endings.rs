//! Holds: batches that end before all their tasks have run, and what every end has in common.

use std::ops::Range;

use batchin_db::{Rerun, Source, Value, WriteTx, exactly, retried};
use batchin_domain::{AccountId, BatchId, BatchStatus, Chore, Ending, TaskStatus, Timestamp, batch::TaskCounts};
use uuid::Uuid;

use crate::{
    BatchRow, BatchRows, Endings, StoreError, outbox::events::batches_ended, queue::batches::lock_batch, stored::to_i64,
};

/// A batch of at most so many tasks is stopped in the transaction that asks for it; a larger one bit by bit, so that
/// nobody waits for it.
const STOP_AT_ONCE: u32 = 1_000;

/// A batch that was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// Where it stands now: on the way to its end, or however it had ended before.
    pub status: BatchStatus,
    /// How many tasks will not run because of it.
    pub stopped: u64,
}

/// Why a batch was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No such batch in this account.
    #[error("there is no such batch")]
    NotFound,
    /// The store failed.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

impl Endings {
    /// Stops a batch: what waits is not run, what runs is fenced off. A batch that has ended stays as it is.
    pub async fn cancel_batch(
        &self,
        account: AccountId,
        id: BatchId,
        now: Timestamp,
    ) -> Result<Cancelled, CancelError> {
        let known = BatchRows { db: self.db.clone() }.batch(account, id).await.map_err(CancelError::Store)?;
        known.ok_or(CancelError::NotFound)?;
        let stopped = self.stop_batch(id, Ending::Cancelled, now).await.map_err(CancelError::Store)?;
        stopped.ok_or(CancelError::NotFound)
    }

    /// Brings a batch to an early end, if it is not on the way to one already. `None`: there is no such batch.
    pub async fn stop_batch(
        &self,
        id: BatchId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Option<Cancelled>, StoreError> {
        retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            // Tasks before their batch: the order in which every verb locks.
            let tasks = lock_unended(&tx, id, 0..u64::from(STOP_AT_ONCE)).await?;
            let Some(batch) = lock_batch(&tx, id).await? else { return Ok(None) };
            if batch.status.is_final() || batch.status == BatchStatus::Finalizing || batch.ending.is_some() {
                tx.leave().await?;
                return Ok(Some(Cancelled { status: batch.status, stopped: 0 }));
            }
            let status = ending.on_the_way();
            // A file is read and loaded all the same: of a batch, each line is written once, whatever happens to it.
            let chore = match batch.chore {
                Chore::Read | Chore::Load => batch.chore,
                Chore::None | Chore::Stop | Chore::Close => Chore::Stop,
            };
            tx.run(
                "UPDATE batch SET status = $2, ending = $3, ending_at = $4, blocked = NULL, chore = $5, \
                 steward = CASE WHEN chore = $5 THEN steward ELSE NULL END WHERE id = $1",
                [
                    id.uuid().into(),
                    status.code().into(),
                    ending.code().into(),
                    now.micros().into(),
                    chore.code().into(),
                ],
            )
            .await?;
            if batch.counts.total <= STOP_AT_ONCE && chore == Chore::Stop {
                stop(&tx, &batch, ending, (&tasks, now)).await?;
            }
            tx.commit().await?;
            Ok(Some(Cancelled { status, stopped: u64::from(batch.counts.left()) }))
        })
        .await
    }

    /// Batches whose windows have passed and that have not ended.
    pub async fn overdue_batches(&self, limit: u32, now: Timestamp) -> Result<Vec<BatchId>, StoreError> {
        let sql = format!(
            "SELECT id FROM batch WHERE expires_at IS NOT NULL AND expires_at <= $1 AND status IN ({}, {}, {}) \
             ORDER BY expires_at LIMIT $2",
            BatchStatus::Pending.code(),
            BatchStatus::InProgress.code(),
            BatchStatus::Validating.code()
        );
        let rows = self.db.all(sql, [now.micros().into(), i64::from(limit).into()]).await?;
        rows.iter().map(|row| Ok(BatchId::new(row.get("id")?))).collect()
    }
}

/// Locks the tasks with these indices that have not ended.
pub(crate) async fn lock_unended(tx: &WriteTx, batch: BatchId, indices: Range<u64>) -> Result<Vec<Uuid>, StoreError> {
    let sql = format!(
        "SELECT id FROM task WHERE batch_id = $1 AND idx >= $2 AND idx < $3 AND state IN ({}, {}) ORDER BY id{}",
        TaskStatus::Pending.code(),
        TaskStatus::Running.code(),
        tx.dialect.for_update()
    );
    let values = [batch.uuid().into(), to_i64(indices.start).into(), to_i64(indices.end).into()];
    let rows = tx.all(sql, values).await?;
    rows.iter().map(|row| row.get("id")).collect()
}

/// Ends tasks, which are locked, without their having run. `batch` is as it was locked.
pub(crate) async fn stop(
    tx: &WriteTx,
    batch: &BatchRow,
    ending: Ending,
    (tasks, now): (&[Uuid], Timestamp),
) -> Result<(), StoreError> {
    let first = to_i64(u64::from(batch.counts.ended())) + 1;
    let values = tasks.iter().zip(first..).flat_map(|(task, seq)| -> [Value; 4] {
        [(*task).into(), seq.into(), ending.of_task().code().into(), now.micros().into()]
    });
    let sql = |source: &Source| match source {
        Source::One => "UPDATE task SET state = $3, node_id = NULL, epoch = epoch + 1, finished_at = $4, seq = $2 \
                        WHERE id = $1"
            .to_owned(),
        Source::Many(rows) => format!(
            "WITH v(id, seq, state, at) AS ({rows}) UPDATE task SET state = v.state, node_id = NULL, \
             epoch = epoch + 1, finished_at = v.at, seq = v.seq FROM v WHERE task.id = v.id"
        ),
    };
    exactly(tx.run_over(values.collect(), 4, sql).await?, tasks.len() as u64, "task")?;
    let ended = stopped(ending, u32::try_from(tasks.len()).unwrap_or(u32::MAX));
    count(tx, batch.id, ended).await?;
    if batch.counts.plus(ended).left() == 0 { begin_to_close(tx, batch.id, now).await } else { Ok(()) }
}

/// So many tasks that an early end has stopped.
pub(crate) fn stopped(ending: Ending, tasks: u32) -> TaskCounts {
    if ending.of_task() == TaskStatus::Expired {
        TaskCounts { expired: tasks, ..TaskCounts::default() }
    } else {
        TaskCounts { cancelled: tasks, ..TaskCounts::default() }
    }
}

/// Counts tasks that have ended without having run.
pub(crate) async fn count(tx: &WriteTx, batch: BatchId, more: TaskCounts) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "UPDATE batch SET cancelled = cancelled + $2, expired = expired + $3 WHERE id = $1",
            [batch.uuid().into(), i64::from(more.cancelled).into(), i64::from(more.expired).into()],
        )
        .await?;
    exactly(touched, 1, "batch")
}

/// Every task has ended: what is left is to put the batch's files together.
pub(crate) async fn begin_to_close(tx: &WriteTx, batch: BatchId, now: Timestamp) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "UPDATE batch SET chore = $2, steward = NULL, chore_tries = 0, chore_after = 0, blocked = NULL, \
             finalizing_at = $3, \
             status = CASE WHEN status IN ($4, $5) THEN $6 ELSE status END WHERE id = $1",
            [
                batch.uuid().into(),
                Chore::Close.code().into(),
                now.micros().into(),
                BatchStatus::Pending.code().into(),
                BatchStatus::InProgress.code().into(),
                BatchStatus::Finalizing.code().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "batch")
}

/// Ends a batch for good, and queues the word of it to its owner.
pub(crate) async fn end_batch(
    tx: &WriteTx,
    batch: BatchId,
    status: BatchStatus,
    now: Timestamp,
) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "UPDATE batch SET status = $2, finished_at = $3, chore = $4, steward = NULL, blocked = NULL WHERE id = $1",
            [batch.uuid().into(), status.code().into(), now.micros().into(), Chore::None.code().into()],
        )
        .await?;
    exactly(touched, 1, "batch")?;
    batches_ended(tx, &[(batch, status)], now).await
}
