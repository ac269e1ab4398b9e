//! Holds: lists and estimates as a person reads them.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::talk::{Estimate, Listed};
use crate::counted::counted;

/// A table of batches, and how to go on where there are as many as were asked for.
pub(super) fn list(batches: &[Listed], limit: u32) -> String {
    if batches.is_empty() {
        return "no batches\n".to_owned();
    }
    let mut text =
        format!("{:<36}  {:<11}  {:<8}  {:>15}  {:>7}  CREATED\n", "ID", "STATUS", "PRIORITY", "TASKS", "FAILED");
    for Listed { id, priority, created_at, counts } in batches {
        let done = format!("{}/{}", counts.completed_tasks + counts.failed_tasks, counts.total_tasks);
        let (status, failed) = (&counts.status, counts.failed_tasks);
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{id:<36}  {status:<11}  {priority:<8}  {done:>15}  {failed:>7}  {created_at}");
    }
    if let Some(last) = batches.last().filter(|_| batches.len() >= limit as usize) {
        let _ = writeln!(text, "for older ones: --after {}", last.id);
    }
    text
}

/// What a batch will cost.
pub(super) fn estimate(estimate: &Estimate) -> String {
    let cost = cost(&estimate.max_cost_cents, estimate.expected_cost_cents.as_deref());
    let size = |tasks: u64, tokens: u64| format!("{}, {}", counted(tasks, "task"), counted(tokens, "prompt token"));
    let mut text = format!("{}: {cost}\n", size(estimate.total_tasks, estimate.input_tokens));
    for model in &estimate.by_model {
        let cost = self::cost(&model.max_cost_cents, model.expected_cost_cents.as_deref());
        let _ = writeln!(text, "  {}: {}: {cost}", model.model, size(model.tasks, model.input_tokens));
    }
    text
}

fn cost(most: &RawValue, expected: Option<&RawValue>) -> String {
    match expected {
        Some(expected) if expected.get() != "null" => {
            format!("at most {}, about {expected} expected", counted(most, "cent"))
        }
        _ => format!("at most {}", counted(most, "cent")),
    }
}
