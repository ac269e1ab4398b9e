//! Holds: a task as its batch's owner sees it, with its answer.

use std::sync::Arc;

use batchin_domain::{BatchId, Ending, Measure, TaskStatus};
use batchin_files::BlobError;
use batchin_store::TaskRow;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{app::App, cents::Cents, error::ApiError, made::Made};

/// A task.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub(super) struct TaskObject {
    #[schema(example = "task-1")]
    custom_id: String,
    /// Its place in the batch, from zero.
    index: u64,
    /// Its place in the order in which the batch's tasks ended, from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    model: String,
    /// `pending`, `running`, `completed`, `failed`, `cancelled` or `expired`.
    #[schema(example = "completed")]
    status: &'static str,
    /// The answer's body; null until there is one, and where there is none.
    #[schema(value_type = Option<Object>, required = true)]
    result: Option<Box<RawValue>>,
    /// What went wrong, or why it was not run; null where nothing did.
    #[schema(required = true)]
    error: Option<TaskError>,
    #[schema(required = true)]
    usage: Option<TaskTokens>,
    #[schema(required = true)]
    cost_cents: Option<Cents>,
}

/// Why a task failed.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskError {
    #[schema(example = "context_length_exceeded")]
    code: String,
    message: String,
    /// The HTTP status of the answer, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    /// The field at fault, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
}

/// What a task consumed.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskTokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    /// The part of `prompt_tokens` that the model server found in its cache.
    cached_tokens: u64,
    /// The part of them that it wrote to its cache, where it says so.
    cache_write_tokens: u64,
    #[serde(flatten)]
    made: Made,
}

/// A batch's tasks with their answers, in order. `ending` is what stopped the batch, if something did.
pub(super) async fn with_answers(
    app: &App,
    mut rows: Vec<TaskRow>,
    (batch, ending): (BatchId, Option<Ending>),
) -> Result<Vec<TaskObject>, ApiError> {
    let read = match answers(app, &rows).await {
        // A batch that ends moves its results: the rows are older than that.
        Err(cause) if cause.is_missing() => {
            for row in rows.iter_mut().filter(|row| row.result.is_some()) {
                let again = app.batch_rows.tasks(batch, row.index, 1).await?.pop();
                row.result = again.filter(|again| again.index == row.index).and_then(|again| again.result);
            }
            answers(app, &rows).await
        }
        read => read,
    };
    let mut answers = read.map_err(|cause| ApiError::blob(&*cause))?.into_iter();
    let mut objects = Vec::with_capacity(rows.len());
    for row in rows {
        let answer = row.result.as_ref().and_then(|_| answers.next());
        objects.push(object(row, answer.map(json).transpose()?, ending));
    }
    Ok(objects)
}

async fn answers(app: &App, rows: &[TaskRow]) -> Result<Vec<Bytes>, Arc<BlobError>> {
    let ranges: Vec<_> = rows.iter().filter_map(|row| row.result.as_ref()).map(|result| &result.body).collect();
    app.batches.read(&ranges).await
}

fn object(row: TaskRow, result: Option<Box<RawValue>>, ending: Option<Ending>) -> TaskObject {
    TaskObject {
        custom_id: row.custom_id,
        index: row.index,
        seq: row.seq,
        model: row.model,
        status: row.status.name(),
        result,
        error: row.error.map(TaskError::from).or_else(|| TaskError::not_run(row.status, ending)),
        cost_cents: row.usage.map(|usage| usage.cost.into()),
        usage: row.usage.map(|usage| TaskTokens {
            prompt_tokens: usage.counts.of(Measure::PromptTokens),
            completion_tokens: usage.counts.of(Measure::CompletionTokens),
            total_tokens: usage.counts.tokens(),
            cached_tokens: usage.counts.of(Measure::CachedTokens),
            cache_write_tokens: usage.counts.of(Measure::CacheWriteTokens),
            made: usage.counts.into(),
        }),
    }
}

impl From<batchin_store::TaskError> for TaskError {
    fn from(error: batchin_store::TaskError) -> Self {
        Self { code: error.code, message: error.message, status_code: error.status, param: error.param }
    }
}

impl TaskError {
    /// Of a task that was stopped with its batch, as on the line of the batch's error file.
    fn not_run(status: TaskStatus, ending: Option<Ending>) -> Option<Self> {
        let fallback = match status {
            TaskStatus::Cancelled => Ending::Cancelled,
            TaskStatus::Expired => Ending::Expired,
            TaskStatus::Pending | TaskStatus::Running | TaskStatus::Completed | TaskStatus::Failed => return None,
        };
        let (code, message) = ending.unwrap_or(fallback).explanation();
        Some(Self { code: code.to_owned(), message: message.to_owned(), status_code: None, param: None })
    }
}

fn json(bytes: Bytes) -> Result<Box<RawValue>, ApiError> {
    let text = String::from_utf8(bytes.into()).map_err(|_| ApiError::internal())?;
    RawValue::from_string(text).map_err(|_| ApiError::internal())
}
