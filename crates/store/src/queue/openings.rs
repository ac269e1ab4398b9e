//! Holds: opening batches, and making their tasks.

use std::collections::BTreeSet;

use batchin_db::{Rerun, Target, Value, WriteTx, retried};
use batchin_domain::{
    AccountId, Amount, BatchId, BatchStatus, CallKind, Chore, Counts, FileId, KeyId, TaskId, TaskStatus, Timestamp,
    batch::TaskCounts,
};

use crate::{
    BatchRow, BatchTerms, BatchTimes, IdempotencyScope, Openings, StoreError, StoredAnswer, TaskUsage, files::use_file,
    inference::idempotency::remember, stored::to_i64,
};

/// Where a batch's tasks come from.
#[derive(Clone, Debug)]
pub enum NewTasks {
    /// From the request itself, and every one has been checked.
    Inline(Vec<NewTask>),
    /// From its input file, which has yet to be read.
    File,
}

/// A batch to be opened.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Names it.
    pub id: BatchId,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// What its owner asks of it.
    pub terms: BatchTerms,
    /// The blob that holds every request body.
    pub input_blob: String,
    /// The file that is this blob.
    pub input_file: Option<FileId>,
    /// Its tasks.
    pub tasks: NewTasks,
    /// The answer to remember, with the batch, for the request's Idempotency-Key.
    pub answer: Option<(IdempotencyScope, StoredAnswer)>,
    /// When.
    pub now: Timestamp,
}

impl NewBatch {
    /// The batch as its owner sees it once it is open.
    pub fn row(&self) -> BatchRow {
        let (status, chore, total) = self.beginning();
        let times = BatchTimes {
            created: self.now,
            started: None,
            ending: None,
            finalizing: None,
            finished: None,
            expires: self.terms.window.map(|window| self.now.after(window.duration())),
        };
        BatchRow {
            id: self.id,
            account: self.account,
            status,
            chore,
            inline: matches!(self.tasks, NewTasks::Inline(_)),
            terms: self.terms.clone(),
            model: None,
            input_blob: self.input_blob.clone(),
            input_file: self.input_file,
            output_file: None,
            error_file: None,
            counts: TaskCounts { total, ..TaskCounts::default() },
            loaded: total,
            loaded_bytes: 0,
            ending: None,
            faults: None,
            blocked: None,
            usage: TaskUsage { counts: Counts::NONE, cost: Amount::ZERO },
            reasoning_tokens: 0,
            times,
        }
    }

    /// Where it stands at first, and how many tasks it is known to have.
    fn beginning(&self) -> (BatchStatus, Chore, u32) {
        match &self.tasks {
            NewTasks::Inline(tasks) => {
                (BatchStatus::Pending, Chore::None, u32::try_from(tasks.len()).unwrap_or(u32::MAX))
            }
            NewTasks::File => (BatchStatus::Validating, Chore::Read, 0),
        }
    }
}

/// One task of a batch.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// Names it; ids of a batch grow in its order.
    pub id: TaskId,
    /// The owner's name for it; unique in the batch.
    pub custom_id: String,
    /// The model as asked for.
    pub model: String,
    /// The kind of call.
    pub call: CallKind,
    /// Where its body begins in the input blob, in bytes.
    pub body_offset: u64,
    /// How long its body is, in bytes.
    pub body_len: u64,
}

/// Why a batch was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateBatchError {
    /// Its input file is gone, or not the account's.
    #[error("there is no such input file")]
    NoFile,
    /// The store failed.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

impl Openings {
    /// Opens a batch; one that is made inline with all its tasks. The same batch again changes nothing.
    pub async fn create_batch(&self, new: NewBatch) -> Result<(), CreateBatchError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if let Some(file) = new.input_file
                && !use_file(&tx, new.account, file, new.now).await?
            {
                return Ok(false);
            }
            if insert_batch(&tx, &new).await? {
                if let NewTasks::Inline(tasks) = &new.tasks {
                    let place =
                        Place { batch: new.id, account: new.account, first: 0, state: Inserted::Waiting, now: new.now };
                    insert_tasks(&tx, place, tasks).await?;
                }
                if let Some((scope, answer)) = &new.answer {
                    remember(&tx, scope, answer).await?;
                }
                tx.commit().await?;
            }
            Ok(true)
        });
        match run.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CreateBatchError::NoFile),
            Err(cause) => Err(CreateBatchError::Store(cause)),
        }
    }
}

/// Whether the batch is new.
async fn insert_batch(tx: &WriteTx, new: &NewBatch) -> Result<bool, StoreError> {
    let (status, chore, total) = new.beginning();
    let terms = &new.terms;
    let expires_at = terms.window.map(|window| new.now.after(window.duration()).micros());
    let inserted = tx
        .run(
            "INSERT INTO batch (id, account_id, key_id, priority, rank, status, chore, inline, endpoint, total, loaded, \
             webhook_url, input_blob, input_file, metadata, window_hours, expires_at, output_seconds, max_cost_nano, \
             created_at) VALUES ($1,$2,$3,$4,$4,$5,$6,$7,$8,$9,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18) \
             ON CONFLICT (id) DO NOTHING",
            [
                new.id.uuid().into(),
                new.account.uuid().into(),
                new.key.map(KeyId::uuid).into(),
                terms.priority.code().into(),
                status.code().into(),
                chore.code().into(),
                matches!(new.tasks, NewTasks::Inline(_)).into(),
                terms.call.map(CallKind::code).into(),
                i64::from(total).into(),
                terms.webhook_url.clone().into(),
                new.input_blob.as_str().into(),
                new.input_file.map(FileId::uuid).into(),
                terms.metadata.clone().into(),
                terms.window.map(|window| i16::try_from(window.hours()).unwrap_or(i16::MAX)).into(),
                expires_at.into(),
                terms.output_seconds.map(i64::from).into(),
                terms.max_cost.map(Amount::nanos).into(),
                new.now.micros().into(),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// How tasks begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Inserted {
    /// Waiting to be claimed.
    Waiting,
    /// Ended without having run; the first gets this `seq`.
    Ended(TaskStatus, u64),
}

/// Where tasks are inserted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub batch: BatchId,
    pub account: AccountId,
    /// The index of the first.
    pub first: u64,
    pub state: Inserted,
    pub now: Timestamp,
}

const TASK: Target = Target {
    table: "task",
    columns: &[
        "id",
        "batch_id",
        "idx",
        "account_id",
        "custom_id",
        "model",
        "endpoint",
        "state",
        "not_before",
        "body_offset",
        "body_len",
        "seq",
        "finished_at",
    ],
};

pub(crate) async fn insert_tasks(tx: &WriteTx, place: Place, tasks: &[NewTask]) -> Result<(), StoreError> {
    if matches!(place.state, Inserted::Waiting) {
        note_models(tx, place.batch, tasks).await?;
    }
    let mut values: Vec<Value> = Vec::with_capacity(tasks.len() * TASK.columns.len());
    for (index, task) in (place.first..).zip(tasks) {
        let (state, seq) = match place.state {
            Inserted::Waiting => (TaskStatus::Pending, None),
            Inserted::Ended(state, first) => (state, Some(to_i64(first + (index - place.first)))),
        };
        values.extend([
            task.id.uuid().into(),
            place.batch.uuid().into(),
            to_i64(index).into(),
            place.account.uuid().into(),
            task.custom_id.as_str().into(),
            task.model.as_str().into(),
            task.call.code().into(),
            state.code().into(),
            place.now.micros().into(),
            to_i64(task.body_offset).into(),
            to_i64(task.body_len).into(),
            seq.into(),
            seq.map(|_| place.now.micros()).into(),
        ]);
    }
    tx.insert(TASK, values).await
}

/// Which models a batch has tasks for: nodes ask by model, since one that is down must not keep others' room.
async fn note_models(tx: &WriteTx, batch: BatchId, tasks: &[NewTask]) -> Result<(), StoreError> {
    let models: BTreeSet<&str> = tasks.iter().map(|task| task.model.as_str()).collect();
    for model in models {
        let sql = "INSERT INTO batch_model (batch_id, model) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tx.run(sql, [batch.uuid().into(), model.into()]).await?;
    }
    Ok(())
}
