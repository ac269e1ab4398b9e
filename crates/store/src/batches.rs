//! Holds: batches and what their owners see of them.

use batchin_domain::{
    AccountId, Amount, BatchId, BatchStatus, KeyId, Priority, TaskId, TaskStatus, Timestamp, batch::TaskCounts,
};
use sea_orm::{QueryResult, Value};

use crate::{
    BlobRange, IdempotencyScope, Store, StoreError, StoredAnswer,
    accounts::stored_amount,
    commit::write::count_batch,
    connect::{Rerun, WriteTx, retried},
    dialect::{Dialect, runs},
    error::exactly,
    idempotency::remember,
};

/// A batch whose every task has been checked.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Names it.
    pub id: BatchId,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// How urgent it is.
    pub priority: Priority,
    /// Whom to tell when it has ended.
    pub webhook_url: Option<String>,
    /// The blob that holds every request body.
    pub input_blob: String,
    /// Its tasks, in the order given.
    pub tasks: Vec<NewTask>,
    /// The answer to remember, with the batch, for the request's Idempotency-Key.
    pub answer: Option<(IdempotencyScope, StoredAnswer)>,
    /// When.
    pub now: Timestamp,
}

/// One task of a [`NewBatch`].
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Names it.
    pub id: TaskId,
    /// The owner's name for it; unique in the batch.
    pub custom_id: String,
    /// The model as asked for.
    pub model: String,
    /// The kind of call, as its stored number.
    pub endpoint: i16,
    /// Where its body begins in the input blob, in bytes.
    pub body_offset: u64,
    /// How long its body is, in bytes.
    pub body_len: u64,
}

/// Why a batch was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateBatchError {
    /// The store failed.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

/// A batch as its owner sees it.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Names it.
    pub id: BatchId,
    /// How urgent it is.
    pub priority: Priority,
    /// Where it stands.
    pub status: BatchStatus,
    /// How its tasks stand.
    pub counts: TaskCounts,
    /// Why it waits, if it does.
    pub blocked: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a task consumed.
#[derive(Clone, Copy, Debug)]
pub struct TaskUsage {
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Completion tokens.
    pub output_tokens: u64,
    /// What it cost.
    pub cost: Amount,
}

/// A task as its batch's owner sees it.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its place in the batch, from zero.
    pub index: u64,
    /// Names it.
    pub id: TaskId,
    /// The owner's name for it.
    pub custom_id: String,
    /// The model as asked for.
    pub model: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Where its answer lies.
    pub result: Option<BlobRange>,
    /// What went wrong: code and message.
    pub error: Option<(String, String)>,
    /// What it consumed, once it has ended.
    pub usage: Option<TaskUsage>,
}

/// A batch that was asked to stop.
#[derive(Clone, Copy, Debug)]
pub struct Cancelled {
    /// Where it stands now: cancelled, or however it had ended before.
    pub status: BatchStatus,
    /// How many tasks were stopped.
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

const fn priority_code(priority: Priority) -> i16 {
    match priority {
        Priority::High => 0,
        Priority::Low => 1,
        Priority::Fill => 2,
    }
}

pub(crate) fn stored_priority(row: &QueryResult) -> Result<Priority, StoreError> {
    match row.try_get::<i16>("", "priority")? {
        0 => Ok(Priority::High),
        1 => Ok(Priority::Low),
        2 => Ok(Priority::Fill),
        _ => Err(StoreError::Corrupt { table: "batch", column: "priority" }),
    }
}

pub(crate) fn priority_value(priority: Priority) -> Value {
    priority_code(priority).into()
}

impl Store {
    /// Opens a batch with all its tasks. The same batch again changes nothing.
    pub async fn create_batch(&self, new: NewBatch) -> Result<(), CreateBatchError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            if insert_batch(&tx, &new).await? {
                insert_tasks(&tx, &new).await?;
                if let Some((scope, answer)) = &new.answer {
                    remember(&tx, scope, answer).await?;
                }
                tx.commit().await?;
            }
            Ok(())
        });
        run.await.map_err(CreateBatchError::Store)
    }

    /// An account's batches, newest first.
    pub async fn batches(&self, account: AccountId, limit: u32, offset: u32) -> Result<Vec<BatchRow>, StoreError> {
        let rows = self
            .all(
                "SELECT id, priority, status, total, completed, failed, cancelled, blocked, created_at, finished_at \
                 FROM batch WHERE account_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3",
                [account.uuid().into(), i64::from(limit).into(), i64::from(offset).into()],
            )
            .await?;
        rows.iter().map(batch_row).collect()
    }

    /// One of an account's batches.
    pub async fn batch(&self, account: AccountId, id: BatchId) -> Result<Option<BatchRow>, StoreError> {
        let row = self
            .one(
                "SELECT id, priority, status, total, completed, failed, cancelled, blocked, created_at, finished_at \
                 FROM batch WHERE account_id = $1 AND id = $2",
                [account.uuid().into(), id.uuid().into()],
            )
            .await?;
        row.as_ref().map(batch_row).transpose()
    }

    /// A batch's tasks from index `from` on, in order.
    pub async fn tasks(&self, batch: BatchId, from: u64, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        let rows = self
            .all(
                "SELECT id, idx, custom_id, model, state, result_blob, result_offset, result_len, error_code, \
                 error_message, input_tokens, output_tokens, cost_nano FROM task \
                 WHERE batch_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
                [batch.uuid().into(), i64::try_from(from).unwrap_or(i64::MAX).into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(task_row).collect()
    }

    /// Stops a batch: what waits is not run, what runs is fenced off. A batch that has ended stays as it is.
    pub async fn cancel_batch(
        &self,
        account: AccountId,
        id: BatchId,
        now: Timestamp,
    ) -> Result<Cancelled, CancelError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let known = self.batch(account, id).await?;
            let Some(batch) = known else { return Ok(None) };
            if batch.status.is_final() {
                return Ok(Some(Cancelled { status: batch.status, stopped: 0 }));
            }
            let tx = self.write().await?;
            let stopped = stop_tasks(&tx, id, now).await?;
            let more = TaskCounts { cancelled: u32::try_from(stopped).unwrap_or(u32::MAX), ..TaskCounts::default() };
            let status = count_batch(&tx, id, more, now).await?;
            tx.commit().await?;
            Ok(Some(Cancelled { status, stopped }))
        });
        run.await.map_err(CancelError::Store)?.ok_or(CancelError::NotFound)
    }

    /// Says why a batch waits, or that it no longer does.
    pub async fn set_blocked(&self, batch: BatchId, reason: Option<&str>) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            tx.run(
                "UPDATE batch SET blocked = $2 WHERE id = $1 AND status IN ($3, $4)",
                [
                    batch.uuid().into(),
                    reason.map(str::to_owned).into(),
                    BatchStatus::Pending.code().into(),
                    BatchStatus::InProgress.code().into(),
                ],
            )
            .await?;
            tx.commit().await
        })
        .await
    }
}

/// Cancels the tasks that have not ended; returns how many.
async fn stop_tasks(tx: &WriteTx, batch: BatchId, now: Timestamp) -> Result<u64, StoreError> {
    let (pending, running) = (TaskStatus::Pending.code(), TaskStatus::Running.code());
    let unended = format!("batch_id = $1 AND state IN ({pending}, {running})");
    if tx.dialect == Dialect::Postgres {
        // Every transaction locks rows in one order.
        let lock = format!("SELECT count(*) FROM (SELECT 1 FROM task WHERE {unended} ORDER BY id FOR UPDATE) q");
        tx.run(lock, [batch.uuid().into()]).await?;
    }
    tx.run(
        format!("UPDATE task SET state = $2, node_id = NULL, epoch = epoch + 1, finished_at = $3 WHERE {unended}"),
        [batch.uuid().into(), TaskStatus::Cancelled.code().into(), now.micros().into()],
    )
    .await
}

/// Whether the batch is new.
async fn insert_batch(tx: &WriteTx, new: &NewBatch) -> Result<bool, StoreError> {
    let inserted = tx
        .run(
            "INSERT INTO batch (id, account_id, key_id, priority, status, total, webhook_url, input_blob, created_at) \
         VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9) ON CONFLICT (id) DO NOTHING",
            [
                new.id.uuid().into(),
                new.account.uuid().into(),
                new.key.map(KeyId::uuid).into(),
                priority_value(new.priority),
                BatchStatus::Pending.code().into(),
                i64::try_from(new.tasks.len()).unwrap_or(i64::MAX).into(),
                new.webhook_url.clone().into(),
                new.input_blob.as_str().into(),
                new.now.micros().into(),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

async fn insert_tasks(tx: &WriteTx, new: &NewBatch) -> Result<(), StoreError> {
    const COLUMNS: usize = 12;
    let mut index = 0_i64;
    let mut rest = new.tasks.as_slice();
    for run in runs(new.tasks.len()) {
        let (now, later) = rest.split_at(run);
        rest = later;
        let mut values: Vec<Value> = Vec::with_capacity(run * COLUMNS);
        for task in now {
            values.extend([
                task.id.uuid().into(),
                new.id.uuid().into(),
                index.into(),
                new.account.uuid().into(),
                task.custom_id.as_str().into(),
                task.model.as_str().into(),
                task.endpoint.into(),
                priority_value(new.priority),
                TaskStatus::Pending.code().into(),
                new.now.micros().into(),
                i64::try_from(task.body_offset).unwrap_or(i64::MAX).into(),
                i64::try_from(task.body_len).unwrap_or(i64::MAX).into(),
            ]);
            index += 1;
        }
        let sql = format!(
            "INSERT INTO task (id, batch_id, idx, account_id, custom_id, model, endpoint, priority, state, not_before, \
             body_offset, body_len) {}",
            tx.dialect.rows(run, COLUMNS)
        );
        exactly(tx.run(sql, values).await?, run as u64, "task")?;
    }
    Ok(())
}

fn batch_row(row: &QueryResult) -> Result<BatchRow, StoreError> {
    let count = |column: &'static str| -> Result<u32, StoreError> {
        u32::try_from(row.try_get::<i64>("", column)?).map_err(|_| StoreError::Corrupt { table: "batch", column })
    };
    let status = BatchStatus::from_code(row.try_get("", "status")?);
    Ok(BatchRow {
        id: BatchId::new(row.try_get("", "id")?),
        priority: stored_priority(row)?,
        status: status.ok_or(StoreError::Corrupt { table: "batch", column: "status" })?,
        counts: TaskCounts {
            total: count("total")?,
            completed: count("completed")?,
            failed: count("failed")?,
            cancelled: count("cancelled")?,
        },
        blocked: row.try_get("", "blocked")?,
        created_at: Timestamp::from_micros(row.try_get("", "created_at")?),
        finished_at: row.try_get::<Option<i64>>("", "finished_at")?.map(Timestamp::from_micros),
    })
}

fn task_row(row: &QueryResult) -> Result<TaskRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "task", column };
    let unsigned = |column: &'static str| -> Result<Option<u64>, StoreError> {
        let stored: Option<i64> = row.try_get("", column)?;
        stored.map(|n| u64::try_from(n).map_err(|_| corrupt(column))).transpose()
    };
    let blob: Option<String> = row.try_get("", "result_blob")?;
    let result = blob.zip(unsigned("result_offset")?).zip(unsigned("result_len")?);
    let code: Option<String> = row.try_get("", "error_code")?;
    let usage = match unsigned("input_tokens")?.zip(unsigned("output_tokens")?) {
        Some((input_tokens, output_tokens)) => {
            Some(TaskUsage { input_tokens, output_tokens, cost: stored_amount(row, "task", "cost_nano")? })
        }
        None => None,
    };
    Ok(TaskRow {
        index: unsigned("idx")?.ok_or(corrupt("idx"))?,
        id: TaskId::new(row.try_get("", "id")?),
        custom_id: row.try_get("", "custom_id")?,
        model: row.try_get("", "model")?,
        status: TaskStatus::from_code(row.try_get("", "state")?).ok_or(corrupt("state"))?,
        result: result.map(|((blob, offset), len)| BlobRange { blob, offset, len }),
        error: code.zip(row.try_get("", "error_message")?),
        usage,
    })
}
