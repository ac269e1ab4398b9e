//! Holds: the server's answers, as far as they are used.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A batch or a file that was made.
#[derive(Debug, Deserialize)]
pub(crate) struct Created {
    pub id: String,
}

/// `GET /v1/batches/{id}`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Detail {
    pub status: String,
    #[serde(default)]
    pub total_tasks: u64,
    #[serde(default)]
    pub completed_tasks: u64,
    #[serde(default)]
    pub failed_tasks: u64,
    #[serde(default)]
    pub cancelled_tasks: u64,
    #[serde(default)]
    pub expired_tasks: u64,
    pub blocked: Option<String>,
    /// Why it ended before all tasks had run.
    pub ended_early: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// Kept as text: money is not a float.
    pub cost_cents: Option<Box<RawValue>>,
    /// What a file's check found.
    pub faults: Option<Vec<LineFault>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LineFault {
    /// Of the file that was sent, from 1.
    pub line: Option<u64>,
    pub message: String,
    pub param: Option<String>,
}

/// One of `GET /v1/batches`.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed {
    pub id: String,
    #[serde(default)]
    pub priority: String,
    #[serde(default)]
    pub created_at: String,
    #[serde(flatten)]
    pub counts: ListedCounts,
}

/// Its own struct because raw values cannot pass through `flatten`.
#[derive(Debug, Deserialize)]
pub(crate) struct ListedCounts {
    pub status: String,
    #[serde(default)]
    pub total_tasks: u64,
    #[serde(default)]
    pub completed_tasks: u64,
    #[serde(default)]
    pub failed_tasks: u64,
}

/// `POST /v1/batches/estimate`.
#[derive(Debug, Deserialize)]
pub(crate) struct Estimate {
    pub total_tasks: u64,
    pub input_tokens: u64,
    pub max_cost_cents: Box<RawValue>,
    pub expected_cost_cents: Option<Box<RawValue>>,
    #[serde(default)]
    pub by_model: Vec<ModelEstimate>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ModelEstimate {
    pub model: String,
    pub tasks: u64,
    pub input_tokens: u64,
    pub max_cost_cents: Box<RawValue>,
    pub expected_cost_cents: Option<Box<RawValue>>,
}

impl Detail {
    pub(crate) fn ended_tasks(&self) -> u64 {
        self.completed_tasks + self.failed_tasks + self.cancelled_tasks + self.expired_tasks
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled" | "expired")
    }
}
