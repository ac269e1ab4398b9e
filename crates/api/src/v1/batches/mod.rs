//! Holds: batches as their owner sees them.

pub(crate) mod cancel;
pub(crate) mod create;
pub(crate) mod estimate;
pub(crate) mod list;
pub(crate) mod results;
pub(crate) mod show;
mod task;

use batchin_domain::{Ending, Measure};
use batchin_store::BatchRow;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{cents::Cents, made::Made};

/// A batch.
#[derive(Serialize, ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchObject {
    id: Uuid,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `expired`.
    #[schema(example = "pending")]
    status: &'static str,
    /// `high`, `low` or `fill`.
    #[schema(example = "low")]
    priority: &'static str,
    total_tasks: u32,
    completed_tasks: u32,
    failed_tasks: u32,
    cancelled_tasks: u32,
    expired_tasks: u32,
    /// Why it waits, if it does: `payment_required`, `budget_used_up` or `max_cost`.
    #[schema(required = true)]
    blocked: Option<String>,
    /// Prompt tokens of the tasks that have ended.
    input_tokens: u64,
    /// Completion tokens of the tasks that have ended.
    output_tokens: u64,
    /// The part of `input_tokens` that model servers found in their caches.
    cached_tokens: u64,
    /// The part of them that they wrote to their caches, where they say so.
    cache_write_tokens: u64,
    #[serde(flatten)]
    made: Made,
    /// What the tasks that have ended cost.
    cost_cents: Cents,
    /// The most that it may cost.
    #[schema(required = true)]
    max_cost_cents: Option<Cents>,
    /// Why it ended before all tasks had run: `cancelled`, `expired` or `max_cost_reached`.
    #[schema(required = true)]
    ended_early: Option<&'static str>,
    #[schema(required = true, example = "24h")]
    completion_window: Option<String>,
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required = true, format = DateTime)]
    finished_at: Option<String>,
    /// What is wrong with its file, of which nothing has run: line, code, message and member.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    faults: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

impl From<BatchRow> for BatchObject {
    fn from(row: BatchRow) -> Self {
        Self {
            id: row.id.uuid(),
            status: row.status.name(),
            priority: row.terms.priority.class().name(),
            total_tasks: row.counts.total,
            completed_tasks: row.counts.completed,
            failed_tasks: row.counts.failed,
            cancelled_tasks: row.counts.cancelled,
            expired_tasks: row.counts.expired,
            blocked: row.blocked,
            input_tokens: row.usage.counts.of(Measure::PromptTokens),
            output_tokens: row.usage.counts.of(Measure::CompletionTokens),
            cached_tokens: row.usage.counts.of(Measure::CachedTokens),
            cache_write_tokens: row.usage.counts.of(Measure::CacheWriteTokens),
            made: row.usage.counts.into(),
            cost_cents: row.usage.cost.into(),
            max_cost_cents: row.terms.max_cost.map(Cents::from),
            ended_early: row.ending.map(Ending::name),
            completion_window: row.terms.window.map(|window| window.to_string()),
            expires_at: row.times.expires.map(|at| at.to_string()),
            created_at: row.times.created.to_string(),
            finished_at: row.times.finished.map(|at| at.to_string()),
            faults: row.faults.and_then(|json| RawValue::from_string(json).ok()),
            metadata: row.terms.metadata.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}
