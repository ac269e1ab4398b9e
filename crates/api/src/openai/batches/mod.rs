//! Holds: batches as OpenAI's clients know them.

pub(crate) mod cancel;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod show;

use batchin_domain::{BatchStatus, CallKind, Ending, Measure, Timestamp};
use batchin_store::BatchRow;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use crate::{cents::Cents, path::batch_name};

/// The endpoint of a batch whose lines may differ in kind.
const MIXED: &str = "mixed";
/// The window of a batch that may take as long as it takes; clients expect a text.
const NO_WINDOW: &str = "none";

/// A batch. The times are Unix seconds, and null until they come.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiBatch)]
pub(crate) struct BatchObject {
    #[schema(example = "batch_0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "batch")]
    object: &'static str,
    /// The kind of call of every line; `mixed` where they may differ.
    #[schema(example = "/v1/chat/completions")]
    endpoint: &'static str,
    /// The one model of all lines, where there is one and once they have been read.
    #[schema(required = true)]
    model: Option<String>,
    /// What is wrong with the file, of which nothing has run; or that the highest cost was reached.
    #[schema(required = true)]
    errors: Option<BatchErrors>,
    #[schema(required = true, example = "file-0197f3a000007000800000000000000a")]
    input_file_id: Option<String>,
    /// `none` for a batch that may take as long as it takes.
    #[schema(example = "24h")]
    completion_window: String,
    /// `validating`, `failed`, `in_progress`, `finalizing`, `completed`, `expired`, `cancelling` or `cancelled`.
    #[schema(example = "in_progress")]
    status: &'static str,
    /// A result on each line; null until the end, and where there is none.
    #[schema(required = true)]
    output_file_id: Option<String>,
    /// A request without a result on each line; null until the end, and where there is none.
    #[schema(required = true)]
    error_file_id: Option<String>,
    #[serde(flatten)]
    times: BatchTimes,
    request_counts: RequestCounts,
    usage: Usage,
    #[schema(required = true, value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// Ours: `high`, `low` or `fill`.
    #[schema(example = "low")]
    priority: &'static str,
    /// Ours: why it waits, if it does: `payment_required`, `budget_used_up` or `max_cost`.
    #[schema(required = true)]
    blocked: Option<String>,
    /// Ours: the most that it may cost.
    #[schema(required = true)]
    max_cost_cents: Option<Cents>,
    /// Ours: what it has cost so far.
    cost_cents: Cents,
}

/// When a batch came to where it is.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiBatchTimes)]
struct BatchTimes {
    created_at: i64,
    #[schema(required = true)]
    in_progress_at: Option<i64>,
    #[schema(required = true)]
    expires_at: Option<i64>,
    #[schema(required = true)]
    finalizing_at: Option<i64>,
    #[schema(required = true)]
    completed_at: Option<i64>,
    #[schema(required = true)]
    failed_at: Option<i64>,
    #[schema(required = true)]
    expired_at: Option<i64>,
    #[schema(required = true)]
    cancelling_at: Option<i64>,
    #[schema(required = true)]
    cancelled_at: Option<i64>,
}

/// What is wrong.
#[derive(Serialize, ToSchema)]
struct BatchErrors {
    #[schema(example = "list")]
    object: &'static str,
    #[schema(value_type = Vec<BatchFault>)]
    data: Box<RawValue>,
}

/// One thing that is wrong.
#[derive(Serialize, ToSchema)]
struct BatchFault {
    #[schema(example = "missing_required_parameter")]
    code: &'static str,
    message: &'static str,
    /// The member at fault.
    #[schema(required = true)]
    param: Option<&'static str>,
    /// The line of the file, from one.
    #[schema(required = true)]
    line: Option<u64>,
}

/// How the requests stand. In the end those that were cancelled or expired count as failed, so that they add up.
#[derive(Serialize, ToSchema)]
struct RequestCounts {
    total: u32,
    completed: u32,
    failed: u32,
}

/// What the requests consumed so far.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiBatchUsage)]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiBatchInputDetails)]
struct InputDetails {
    cached_tokens: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiBatchOutputDetails)]
struct OutputDetails {
    /// As far as the model servers tell them apart.
    reasoning_tokens: u64,
}

impl From<BatchRow> for BatchObject {
    fn from(row: BatchRow) -> Self {
        let status = shown_status(&row);
        Self {
            id: batch_name(row.id),
            object: "batch",
            endpoint: row.terms.call.map_or(MIXED, CallKind::path),
            errors: errors(&row),
            input_file_id: row.input_file.map(|id| id.to_string()),
            completion_window: row.terms.window.map_or_else(|| NO_WINDOW.to_owned(), |window| window.to_string()),
            status: status.openai_name(),
            output_file_id: row.output_file.map(|id| id.to_string()),
            error_file_id: row.error_file.map(|id| id.to_string()),
            times: BatchTimes::of(&row, status),
            request_counts: RequestCounts {
                total: row.counts.total,
                completed: row.counts.completed,
                failed: row.counts.ended().saturating_sub(row.counts.completed),
            },
            usage: Usage::of(&row),
            priority: row.terms.priority.class().name(),
            max_cost_cents: row.terms.max_cost.map(Cents::from),
            cost_cents: row.usage.cost.into(),
            metadata: row.terms.metadata.and_then(|json| RawValue::from_string(json).ok()),
            model: row.model,
            blocked: row.blocked,
        }
    }
}

/// OpenAI's batches fail when their file is at fault. One that ran is completed, however its requests ended.
fn shown_status(row: &BatchRow) -> BatchStatus {
    match row.status {
        BatchStatus::Failed if row.faults.is_none() => BatchStatus::Completed,
        status => status,
    }
}

/// Whether it was stopped, by its owner or by its highest cost.
fn was_stopped(row: &BatchRow) -> bool {
    matches!(row.ending, Some(Ending::Cancelled | Ending::CostReached))
}

fn errors(row: &BatchRow) -> Option<BatchErrors> {
    let data = match (&row.faults, row.ending) {
        (Some(faults), _) => RawValue::from_string(faults.clone()).ok()?,
        (None, Some(ending @ Ending::CostReached)) => {
            let fault = BatchFault {
                code: ending.name(),
                message: "The next request could cost more than is left of the batch's highest cost.",
                param: Some("max_cost_cents"),
                line: None,
            };
            to_raw_value(&[fault]).ok()?
        }
        (None, Some(Ending::Cancelled | Ending::Expired) | None) => return None,
    };
    Some(BatchErrors { object: "list", data })
}

impl BatchTimes {
    fn of(row: &BatchRow, status: BatchStatus) -> Self {
        let times = &row.times;
        let seconds = |at: Option<Timestamp>| at.map(|at| at.seconds());
        let ended_as = |end| seconds(times.finished.filter(|_| status == end));
        // Inline tasks were checked with the request that made the batch.
        let checked = if row.inline { Some(times.created) } else { times.started };
        Self {
            created_at: times.created.seconds(),
            in_progress_at: seconds(checked),
            expires_at: seconds(times.expires),
            finalizing_at: seconds(times.finalizing.filter(|_| !was_stopped(row))),
            completed_at: ended_as(BatchStatus::Completed),
            failed_at: ended_as(BatchStatus::Failed),
            expired_at: ended_as(BatchStatus::Expired),
            cancelling_at: seconds(times.ending.filter(|_| was_stopped(row))),
            cancelled_at: ended_as(BatchStatus::Cancelled),
        }
    }
}

impl Usage {
    fn of(row: &BatchRow) -> Self {
        let counts = row.usage.counts;
        Self {
            input_tokens: counts.of(Measure::PromptTokens),
            input_tokens_details: InputDetails { cached_tokens: counts.of(Measure::CachedTokens) },
            output_tokens: counts.of(Measure::CompletionTokens),
            output_tokens_details: OutputDetails { reasoning_tokens: row.reasoning_tokens },
            total_tokens: counts.tokens(),
        }
    }
}
