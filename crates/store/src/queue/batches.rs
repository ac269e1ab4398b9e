//! Holds: batches and what their owners see of them.

use batchin_db::{Rerun, Row, WriteTx, retried};
use batchin_domain::{
    AccountId, Amount, BatchId, BatchStatus, CallKind, Chore, Counts, Ending, FileId, Priority, TaskId, TaskStatus,
    Timestamp, Window, batch::TaskCounts,
};

use crate::{
    BatchRows, BlobRange, Claims, StoreError, StoredResult, TaskError,
    stored::{counted, counts_by, stored, stored_amount, stored_if, to_i64, unsigned},
};

/// What an owner asks of a batch, however it was made.
#[derive(Clone, Debug)]
pub struct BatchTerms {
    /// How urgent it is.
    pub priority: Priority,
    /// Whom to tell when it has ended.
    pub webhook_url: Option<String>,
    /// How long it may take; `None` as long as it takes.
    pub window: Option<Window>,
    /// The most that it may cost.
    pub max_cost: Option<Amount>,
    /// The kind of call of every task; `None` where they may differ.
    pub call: Option<CallKind>,
    /// The owner's own labels, as JSON.
    pub metadata: Option<String>,
    /// How long its output files are kept, in seconds; `None` as long as its tasks.
    pub output_seconds: Option<u32>,
}

/// When a batch came to where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTimes {
    /// When it was made.
    pub created: Timestamp,
    /// When its first task started, or its file had been read.
    pub started: Option<Timestamp>,
    /// When it was told to stop.
    pub ending: Option<Timestamp>,
    /// When its last task had ended.
    pub finalizing: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When its window passes.
    pub expires: Option<Timestamp>,
}

/// A batch as its owner sees it.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// Names it.
    pub id: BatchId,
    /// Who pays.
    pub account: AccountId,
    /// Where it stands.
    pub status: BatchStatus,
    /// What a node has to do for it.
    pub chore: Chore,
    /// Whether its tasks came with the request that made it.
    pub inline: bool,
    /// What its owner asked of it.
    pub terms: BatchTerms,
    /// The one model of its tasks, where there is only one.
    pub model: Option<String>,
    /// The blob that holds every request body.
    pub input_blob: String,
    /// The file that is this blob.
    pub input_file: Option<FileId>,
    /// The file of its results, once it has ended.
    pub output_file: Option<FileId>,
    /// The file of its errors, once it has ended.
    pub error_file: Option<FileId>,
    /// How its tasks stand.
    pub counts: TaskCounts,
    /// How many of its tasks have been made of lines.
    pub loaded: u32,
    /// How many bytes of its file these lines have.
    pub loaded_bytes: u64,
    /// Why it ends before all tasks have run, if it does.
    pub ending: Option<Ending>,
    /// What is wrong with its file, as a JSON array.
    pub faults: Option<String>,
    /// Why it waits, if it does.
    pub blocked: Option<String>,
    /// What its tasks consumed so far.
    pub usage: TaskUsage,
    /// Completion tokens among that which were hidden reasoning.
    pub reasoning_tokens: u64,
    /// When it came to where it is.
    pub times: BatchTimes,
}

/// What a task consumed, or all tasks of a batch together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskUsage {
    /// How much of each measure.
    pub counts: Counts,
    /// What it cost.
    pub cost: Amount,
}

/// A task as its batch's owner sees it.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its place in the batch, from zero.
    pub index: u64,
    /// Its place in the order in which the batch's tasks ended, from one.
    pub seq: Option<u64>,
    /// Names it.
    pub id: TaskId,
    /// The owner's name for it.
    pub custom_id: String,
    /// The model as asked for.
    pub model: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Where its answer lies.
    pub result: Option<StoredResult>,
    /// What went wrong.
    pub error: Option<TaskError>,
    /// What it consumed, once it has ended.
    pub usage: Option<TaskUsage>,
}

const BATCH_COLUMNS: &str = "id, account_id, priority, status, chore, inline, endpoint, model, input_blob, input_file, \
     output_file, error_file, total, completed, failed, cancelled, expired, loaded, loaded_bytes, ending, faults, \
     metadata, window_hours, max_cost_nano, output_seconds, webhook_url, blocked, input_tokens, cached_tokens, \
     cache_write_tokens, output_tokens, characters, audio_ms, images, pixels, video_ms, searches, reasoning_tokens, \
     cost_nano, created_at, started_at, ending_at, finalizing_at, finished_at, expires_at";
const TASK_COLUMNS: &str = "id, idx, seq, custom_id, model, state, result_blob, result_offset, result_len, result_head, \
     error_code, error_message, error_status, error_kind, error_param, input_tokens, cached_tokens, \
     cache_write_tokens, output_tokens, characters, audio_ms, images, pixels, video_ms, searches, cost_nano";

impl BatchRows {
    /// An account's batches, newest first.
    pub async fn batches(&self, account: AccountId, limit: u32, offset: u32) -> Result<Vec<BatchRow>, StoreError> {
        let rows = self
            .db
            .all(
                format!(
                    "SELECT {BATCH_COLUMNS} FROM batch WHERE account_id = $1 \
                     ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3"
                ),
                [account.uuid().into(), i64::from(limit).into(), i64::from(offset).into()],
            )
            .await?;
        rows.iter().map(batch_row).collect()
    }

    /// Whether the account has this batch.
    pub async fn has_batch(&self, account: AccountId, id: BatchId) -> Result<bool, StoreError> {
        let sql = "SELECT id FROM batch WHERE account_id = $1 AND id = $2";
        Ok(self.db.one(sql, [account.uuid().into(), id.uuid().into()]).await?.is_some())
    }

    /// An account's batches, newest first, that were made before the batch `after`; all without it. One that is not
    /// there has nothing after it.
    pub async fn batches_after(
        &self,
        account: AccountId,
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchRow>, StoreError> {
        let Some(after) = after else { return self.batches(account, limit, 0).await };
        let rows = self
            .db
            .all(
                format!(
                    "SELECT {BATCH_COLUMNS} FROM batch WHERE account_id = $1 AND (created_at, id) < \
                     (SELECT created_at, id FROM batch WHERE account_id = $1 AND id = $2) \
                     ORDER BY created_at DESC, id DESC LIMIT $3"
                ),
                [account.uuid().into(), after.uuid().into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(batch_row).collect()
    }

    /// One of an account's batches.
    pub async fn batch(&self, account: AccountId, id: BatchId) -> Result<Option<BatchRow>, StoreError> {
        let row = self
            .db
            .one(
                format!("SELECT {BATCH_COLUMNS} FROM batch WHERE account_id = $1 AND id = $2"),
                [account.uuid().into(), id.uuid().into()],
            )
            .await?;
        row.as_ref().map(batch_row).transpose()
    }

    /// A batch's tasks from index `from` on, in order.
    pub async fn tasks(&self, batch: BatchId, from: u64, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        let rows = self
            .db
            .all(
                format!("SELECT {TASK_COLUMNS} FROM task WHERE batch_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3"),
                [batch.uuid().into(), to_i64(from).into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(task_row).collect()
    }

    /// A batch's tasks that ended after the one with this `seq`, in the order in which they ended.
    pub async fn ended_tasks(&self, batch: BatchId, after: u64, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        let rows = self
            .db
            .all(
                format!(
                    "SELECT {TASK_COLUMNS} FROM task WHERE batch_id = $1 AND seq IS NOT NULL AND seq > $2 \
                     ORDER BY seq LIMIT $3"
                ),
                [batch.uuid().into(), to_i64(after).into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(task_row).collect()
    }
}

impl Claims {
    /// Says why a batch waits and until when nobody needs to look at it, or that it waits no longer.
    pub async fn set_blocked(&self, batch: BatchId, blocked: Option<(&str, Timestamp)>) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "UPDATE batch SET blocked = $2, blocked_until = $3 WHERE id = $1 AND status IN ($4, $5)",
                [
                    batch.uuid().into(),
                    blocked.map(|(reason, _)| reason.to_owned()).into(),
                    blocked.map_or(0, |(_, until)| until.micros()).into(),
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

/// Reads a batch inside a transaction, locking it.
pub(crate) async fn lock_batch(tx: &WriteTx, id: BatchId) -> Result<Option<BatchRow>, StoreError> {
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batch WHERE id = $1{}", tx.dialect.for_update());
    tx.one(sql, [id.uuid().into()]).await?.as_ref().map(batch_row).transpose()
}

pub(crate) fn counts(row: &Row) -> Result<TaskCounts, StoreError> {
    let count = |column| count(row, column);
    Ok(TaskCounts {
        total: count("total")?,
        completed: count("completed")?,
        failed: count("failed")?,
        cancelled: count("cancelled")?,
        expired: count("expired")?,
    })
}

fn count(row: &Row, column: &'static str) -> Result<u32, StoreError> {
    u32::try_from(row.get::<i64>(column)?).map_err(|_| StoreError::Corrupt { table: "batch", column })
}

fn batch_row(row: &Row) -> Result<BatchRow, StoreError> {
    const TABLE: &str = "batch";
    let corrupt = |column| StoreError::Corrupt { table: TABLE, column };
    let at =
        |column: &str| -> Result<_, StoreError> { Ok(row.get::<Option<i64>>(column)?.map(Timestamp::from_micros)) };
    let file = |column: &str| -> Result<_, StoreError> { Ok(row.get::<Option<_>>(column)?.map(FileId::new)) };
    let window = row.get::<Option<i16>>("window_hours")?;
    let output_seconds = row.get::<Option<i64>>("output_seconds")?;
    let max_cost = row.get::<Option<i64>>("max_cost_nano")?;
    let amount = |nanos: i64| Amount::from_nanos(nanos).ok_or(corrupt("max_cost_nano"));
    Ok(BatchRow {
        id: BatchId::new(row.get("id")?),
        account: AccountId::new(row.get("account_id")?),
        status: stored(row, TABLE, "status")?,
        chore: stored(row, TABLE, "chore")?,
        inline: row.get("inline")?,
        terms: BatchTerms {
            priority: stored(row, TABLE, "priority")?,
            webhook_url: row.get("webhook_url")?,
            window: window.and_then(|hours| Window::from_hours(u16::try_from(hours).ok()?)),
            max_cost: max_cost.map(amount).transpose()?,
            call: row.get::<Option<i16>>("endpoint")?.and_then(CallKind::from_code),
            metadata: row.get("metadata")?,
            output_seconds: output_seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
        },
        model: row.get("model")?,
        input_blob: row.get("input_blob")?,
        input_file: file("input_file")?,
        output_file: file("output_file")?,
        error_file: file("error_file")?,
        counts: counts(row)?,
        loaded: count(row, "loaded")?,
        loaded_bytes: unsigned(row, TABLE, "loaded_bytes")?,
        ending: stored_if(row, TABLE, "ending")?,
        faults: row.get("faults")?,
        blocked: row.get("blocked")?,
        usage: TaskUsage {
            counts: counts_by(|column| counted(row, TABLE, column))?,
            cost: stored_amount(row, TABLE, "cost_nano")?,
        },
        reasoning_tokens: unsigned(row, TABLE, "reasoning_tokens")?,
        times: BatchTimes {
            created: Timestamp::from_micros(row.get("created_at")?),
            started: at("started_at")?,
            ending: at("ending_at")?,
            finalizing: at("finalizing_at")?,
            finished: at("finished_at")?,
            expires: at("expires_at")?,
        },
    })
}

fn task_row(row: &Row) -> Result<TaskRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "task", column };
    let unsigned = |column: &'static str| -> Result<Option<u64>, StoreError> {
        let stored: Option<i64> = row.get(column)?;
        stored.map(|n| u64::try_from(n).map_err(|_| corrupt(column))).transpose()
    };
    let blob: Option<String> = row.get("result_blob")?;
    let head = unsigned("result_head")?.unwrap_or(0);
    let result = blob.zip(unsigned("result_offset")?).zip(unsigned("result_len")?);
    let result = result.map(|((blob, offset), len)| StoredResult { body: BlobRange { blob, offset, len }, head });
    let code: Option<String> = row.get("error_code")?;
    let error = match code.zip(row.get("error_message")?) {
        Some((code, message)) => Some(TaskError {
            code,
            message,
            status: row.get::<Option<i16>>("error_status")?.and_then(|status| u16::try_from(status).ok()),
            kind: row.get("error_kind")?,
            param: row.get("error_param")?,
        }),
        None => None,
    };
    let usage = match unsigned("input_tokens")? {
        Some(_) => Some(TaskUsage {
            counts: counts_by(|column| Ok(unsigned(column)?.unwrap_or(0)))?,
            cost: stored_amount(row, "task", "cost_nano")?,
        }),
        None => None,
    };
    Ok(TaskRow {
        index: unsigned("idx")?.ok_or(corrupt("idx"))?,
        seq: unsigned("seq")?,
        id: TaskId::new(row.get("id")?),
        custom_id: row.get("custom_id")?,
        model: row.get("model")?,
        status: stored(row, "task", "state")?,
        result,
        error,
        usage,
    })
}
