//! Holds: batches as their owner sees them.

pub(crate) mod cancel;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod results;
pub(crate) mod show;
mod task;

use batchin_store::BatchRow;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

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
    /// Why it waits, if it does.
    #[schema(required = true)]
    blocked: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required = true, format = DateTime)]
    finished_at: Option<String>,
}

impl From<BatchRow> for BatchObject {
    fn from(row: BatchRow) -> Self {
        Self {
            id: row.id.uuid(),
            status: row.status.name(),
            priority: row.priority.class().name(),
            total_tasks: row.counts.total,
            completed_tasks: row.counts.completed,
            failed_tasks: row.counts.failed,
            cancelled_tasks: row.counts.cancelled,
            blocked: row.blocked,
            created_at: row.created_at.to_string(),
            finished_at: row.finished_at.map(|at| at.to_string()),
        }
    }
}
