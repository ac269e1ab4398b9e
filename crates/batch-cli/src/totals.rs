//! Holds: how far a batch is.

use std::time::Duration;

use batchin_domain::Amount;

use super::results::LineHead;
use super::talk::Detail;
use crate::counted::counted;

/// Counts and sums of a batch at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    pub status: String,
    pub tasks: u64,
    pub completed: u64,
    pub failed: u64,
    /// Cancelled or expired.
    pub stopped: u64,
    pub tokens: u64,
    pub cost: Amount,
    pub blocked: Option<String>,
    pub ended_early: Option<String>,
}

/// Sums over the results that have come, for a server that states none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    tokens: u64,
    cost: Amount,
}

impl Sums {
    pub(super) const NONE: Self = Self { tokens: 0, cost: Amount::ZERO };

    pub(super) fn add(&mut self, line: &LineHead) {
        if let Some(usage) = line.usage {
            self.tokens = self.tokens.saturating_add(usage.prompt_tokens).saturating_add(usage.completion_tokens);
        }
        if let Some(cost) = line.cost_cents.as_deref().and_then(|raw| Amount::parse_cents(raw.get()).ok()) {
            self.cost = self.cost.saturating_add(cost);
        }
    }
}

impl Totals {
    /// The batch's own sums count, and those of its results where it states none.
    pub(super) fn new(detail: &Detail, sums: Sums) -> Self {
        let tokens = match (detail.input_tokens, detail.output_tokens) {
            (None, None) => sums.tokens,
            (input, output) => input.unwrap_or(0).saturating_add(output.unwrap_or(0)),
        };
        let cost = detail.cost_cents.as_deref().and_then(|raw| Amount::parse_cents(raw.get()).ok());
        Self {
            status: detail.status.clone(),
            tasks: detail.total_tasks,
            completed: detail.completed_tasks,
            failed: detail.failed_tasks,
            stopped: detail.cancelled_tasks + detail.expired_tasks,
            tokens,
            cost: cost.unwrap_or(sums.cost),
            blocked: detail.blocked.clone(),
            ended_early: detail.ended_early.clone(),
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.completed + self.failed + self.stopped
    }

    pub(super) fn is_all_completed(&self) -> bool {
        self.status == "completed" && self.completed == self.tasks
    }

    /// The last line of a run.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        let Self { status, completed, failed, stopped, .. } = self;
        let (tasks, tokens) = (counted(self.tasks, "task"), counted(self.tokens, "token"));
        let stopped = if *stopped > 0 { format!(", {stopped} not run") } else { String::new() };
        let cost = counted(self.cost.to_cents_text(), "cent");
        let seconds = elapsed.as_secs_f64();
        format!(
            "{status}: {completed} of {tasks} completed, {failed} failed{stopped}, {tokens}, {cost}, \
             {seconds:.1} s"
        )
    }

    /// The same for a program.
    pub(super) fn json(&self, id: &str) -> String {
        let text = serde_json::json!({
            "id": id, "status": self.status, "total_tasks": self.tasks, "completed_tasks": self.completed,
            "failed_tasks": self.failed, "stopped_tasks": self.stopped, "tokens": self.tokens, "blocked": self.blocked,
            "ended_early": self.ended_early,
        });
        // Money is written as the text that it is, never as a float.
        let text = text.to_string();
        format!("{},\"cost_cents\":{}}}", text.strip_suffix('}').unwrap_or(&text), self.cost.to_cents_text())
    }
}
