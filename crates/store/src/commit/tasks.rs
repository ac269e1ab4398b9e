//! Holds: the ends of tasks in a group, and what they mean to their batches.

use std::collections::BTreeMap;

use batchin_domain::{BatchId, TaskStatus, batch::TaskCounts, text::storable};
use sea_orm::Value;

use crate::{
    Settlement, StoreError, TaskEnd, TaskFinish,
    batches::{counts, to_i64},
    commit::write::in_runs,
    connect::WriteTx,
    dialect::{Type, marks},
    endings::begin_to_close,
    error::exactly,
};

/// What a group adds to a batch.
struct Added {
    counts: TaskCounts,
    usage: [i64; 4],
    reasoning: i64,
    /// The `seq` of its next task to end.
    seq: i64,
}

/// Ends the tasks of a group, which are locked, counts them on their batches, and has those closed whose last task that
/// was. Locks the batches.
pub(super) async fn finish_tasks(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    let ending: Vec<_> = fresh.iter().filter_map(|s| s.task.as_ref().map(|task| (*s, task))).collect();
    let Some((first, _)) = ending.first() else { return Ok(()) };
    let now = first.now;
    let mut batches = lock_batches(tx, &ending).await?;
    for these in in_runs(&ending) {
        end_tasks(tx, these, &mut batches).await?;
    }
    for (batch, added) in &batches {
        count_ended(tx, *batch, added).await?;
        if added.counts.left() == 0 {
            begin_to_close(tx, *batch, now).await?;
        }
    }
    Ok(())
}

async fn lock_batches(
    tx: &WriteTx,
    ending: &[(&Settlement, &TaskFinish)],
) -> Result<BTreeMap<BatchId, Added>, StoreError> {
    let mut ids: Vec<BatchId> = ending.iter().map(|(_, task)| task.batch).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut batches = BTreeMap::new();
    for these in in_runs(&ids) {
        let sql = format!(
            "SELECT id, total, completed, failed, cancelled, expired FROM batch WHERE id IN ({}) ORDER BY id{}",
            marks(these.len(), 1),
            tx.dialect.for_update()
        );
        let values: Vec<Value> = these.iter().map(|id| id.uuid().into()).collect();
        for row in tx.all(sql, values).await? {
            let counts = counts(&row)?;
            let seq = i64::from(counts.ended()) + 1;
            batches.insert(BatchId::new(row.try_get("", "id")?), Added { counts, usage: [0; 4], reasoning: 0, seq });
        }
    }
    exactly(batches.len() as u64, ids.len() as u64, "batch")?;
    Ok(batches)
}

async fn end_tasks(
    tx: &WriteTx,
    these: &[(&Settlement, &TaskFinish)],
    batches: &mut BTreeMap<BatchId, Added>,
) -> Result<(), StoreError> {
    const COLUMNS: [Type; 16] = [
        Type::Uuid,
        Type::BigInt,
        Type::BigInt,
        Type::Text,
        Type::BigInt,
        Type::BigInt,
        Type::BigInt,
        Type::Text,
        Type::Text,
        Type::BigInt,
        Type::Text,
        Type::Text,
        Type::BigInt,
        Type::BigInt,
        Type::BigInt,
        Type::BigInt,
    ];
    let mut values: Vec<Value> = Vec::with_capacity(these.len() * COLUMNS.len() + 1);
    for (settlement, task) in these {
        let added = batches.get_mut(&task.batch);
        let added = added.ok_or(StoreError::RowCount { table: "batch", expected: 1, touched: 0 })?;
        let units = settlement.usage.as_ref().map(|u| u.units).unwrap_or_default();
        let cost = settlement.usage.as_ref().map_or(0, |u| u.cost.nanos());
        let consumed = [to_i64(units.input), to_i64(units.cached), to_i64(units.output), cost];
        for (sum, one) in added.usage.iter_mut().zip(consumed) {
            *sum = sum.saturating_add(one);
        }
        let (state, result, error) = match &task.end {
            TaskEnd::Completed { result, reasoning_tokens } => {
                added.reasoning = added.reasoning.saturating_add(to_i64(*reasoning_tokens));
                (TaskStatus::Completed, Some(result), None)
            }
            TaskEnd::Failed(error) => (TaskStatus::Failed, None, Some(error)),
        };
        match state {
            TaskStatus::Completed => added.counts.completed += 1,
            _ => added.counts.failed += 1,
        }
        values.extend([
            task.task.uuid().into(),
            i64::from(state.code()).into(),
            added.seq.into(),
            result.map(|r| r.body.blob.clone()).into(),
            result.map(|r| to_i64(r.body.offset)).into(),
            result.map(|r| to_i64(r.body.len)).into(),
            result.map(|r| to_i64(r.head)).into(),
            // A model server's own words, among others.
            error.map(|e| storable(&e.code)).into(),
            error.map(|e| storable(&e.message)).into(),
            error.and_then(|e| e.status).map(i64::from).into(),
            error.and_then(|e| e.kind.as_deref()).map(storable).into(),
            error.and_then(|e| e.param.as_deref()).map(storable).into(),
        ]);
        values.extend(consumed.map(Value::from));
        added.seq += 1;
    }
    values.push(these.first().map_or(0, |(s, _)| s.now.micros()).into());
    let sql = format!(
        "WITH v(id, state, seq, blob, off, len, head, code, message, status, kind, param, input, cached, output, cost) \
         AS ({}) UPDATE task SET state = v.state, node_id = NULL, seq = v.seq, result_blob = v.blob, \
         result_offset = v.off, result_len = v.len, result_head = v.head, error_code = v.code, \
         error_message = v.message, error_status = v.status, error_kind = v.kind, error_param = v.param, \
         input_tokens = v.input, cached_tokens = v.cached, output_tokens = v.output, cost_nano = v.cost, \
         finished_at = ${} FROM v WHERE task.id = v.id",
        tx.dialect.values(these.len(), &COLUMNS),
        these.len() * COLUMNS.len() + 1,
    );
    exactly(tx.run(sql, values).await?, these.len() as u64, "task")
}

async fn count_ended(tx: &WriteTx, batch: BatchId, added: &Added) -> Result<(), StoreError> {
    let [input, cached, output, cost] = added.usage;
    let touched = tx
        .run(
            format!(
                "UPDATE batch SET completed = $2, failed = $3, input_tokens = {}, cached_tokens = {}, \
                 output_tokens = {}, cost_nano = cost_nano + $7, reasoning_tokens = {} WHERE id = $1",
                plus("input_tokens", 4),
                plus("cached_tokens", 5),
                plus("output_tokens", 6),
                plus("reasoning_tokens", 8)
            ),
            [
                batch.uuid().into(),
                i64::from(added.counts.completed).into(),
                i64::from(added.counts.failed).into(),
                input.into(),
                cached.into(),
                output.into(),
                cost.into(),
                added.reasoning.into(),
            ],
        )
        .await?;
    exactly(touched, 1, "batch")
}

/// A count of tokens and a parameter's more of them, as far as the column goes: what a model server claims must neither
/// refuse the end of a task (PostgreSQL) nor become a number with a fraction (SQLite).
fn plus(column: &str, parameter: usize) -> String {
    let most = i64::MAX;
    format!("CASE WHEN {column} > {most} - ${parameter} THEN {most} ELSE {column} + ${parameter} END")
}
