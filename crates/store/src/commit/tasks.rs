//! Holds: the ends of tasks in a group, and what they mean to their batches.

use std::collections::BTreeMap;

use batchin_db::{Source, Value, WriteTx, both, exactly};
use batchin_domain::{BatchId, Counts, Measure, TaskId, TaskStatus, Timestamp, batch::TaskCounts, text::storable};
use futures::join;

use crate::{
    Settlement, StoreError, TaskEnd, TaskFinish,
    queue::batches::counts,
    queue::endings::begin_to_close,
    stored::{made_columns, made_values, to_i64},
};

/// What a group adds to a batch.
struct Added {
    counts: TaskCounts,
    usage: [i64; 5],
    /// What its tasks have counted but tokens.
    made: Counts,
    reasoning: i64,
    /// The `seq` of its next task to end.
    seq: i64,
}

/// What the ends of a group's tasks come to.
#[derive(Default)]
pub(super) struct Ends {
    /// How many tasks, and the values of their rows.
    tasks: (usize, Vec<Value>),
    /// Those that have counted more than tokens.
    made: Vec<(TaskId, Counts)>,
    batches: BTreeMap<BatchId, Added>,
    /// When the first of them ended.
    at: Option<Timestamp>,
}

impl Ends {
    /// Locks the batches of the tasks that end, which are locked.
    pub(super) async fn lock(tx: &WriteTx, fresh: &[&Settlement]) -> Result<Self, StoreError> {
        let ending: Vec<_> = fresh.iter().filter_map(|s| s.task.as_ref().map(|task| (*s, task))).collect();
        let Some((first, _)) = ending.first() else { return Ok(Self::default()) };
        let mut batches = lock_batches(tx, &ending).await?;
        let values = values_of(&ending, &mut batches)?;
        let made = ending.iter().filter_map(|(settlement, task)| {
            let counts = settlement.usage.as_ref()?.counts;
            counts.has_made().then_some((task.task, counts))
        });
        Ok(Self { tasks: (ending.len(), values), made: made.collect(), batches, at: Some(first.now) })
    }

    /// Ends the tasks, counts them on their batches, and has those closed whose last task that was.
    pub(super) async fn write(self, tx: &WriteTx) -> Result<(), StoreError> {
        let Self { tasks: (tasks, values), made, batches, at } = self;
        let Some(now) = at else { return Ok(()) };
        let count = async {
            for (batch, added) in batches {
                count_ended(tx, batch, &added).await?;
                if added.made.has_made() {
                    count_made(tx, batch, added.made).await?;
                }
                if added.counts.left() == 0 {
                    begin_to_close(tx, batch, now).await?;
                }
            }
            Ok(())
        };
        let end = async {
            end_tasks(tx, values, tasks).await?;
            for (task, counts) in made {
                note_made(tx, task, counts).await?;
            }
            Ok(())
        };
        let (ended, counted) = join!(end, count);
        both(ended, counted).map(drop)
    }
}

async fn lock_batches(
    tx: &WriteTx,
    ending: &[(&Settlement, &TaskFinish)],
) -> Result<BTreeMap<BatchId, Added>, StoreError> {
    let mut ids: Vec<BatchId> = ending.iter().map(|(_, task)| task.batch).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut batches = BTreeMap::new();
    let lock = tx.dialect.for_update();
    let sql = |these: &str| {
        format!("SELECT id, total, completed, failed, cancelled, expired FROM batch WHERE id {these} ORDER BY id{lock}")
    };
    for row in tx.all_of(ids.iter().map(|id| id.uuid().into()).collect(), Vec::new(), sql).await? {
        let counts = counts(&row)?;
        let seq = i64::from(counts.ended()) + 1;
        batches.insert(
            BatchId::new(row.get("id")?),
            Added { counts, usage: [0; 5], made: Counts::NONE, reasoning: 0, seq },
        );
    }
    exactly(batches.len() as u64, ids.len() as u64, "batch")?;
    Ok(batches)
}

/// What the end of a task writes, besides its id.
const COLUMNS: [&str; 17] = [
    "state",
    "seq",
    "result_blob",
    "result_offset",
    "result_len",
    "result_head",
    "error_code",
    "error_message",
    "error_status",
    "error_kind",
    "error_param",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "cost_nano",
    "finished_at",
];

fn values_of(
    these: &[(&Settlement, &TaskFinish)],
    batches: &mut BTreeMap<BatchId, Added>,
) -> Result<Vec<Value>, StoreError> {
    let mut values: Vec<Value> = Vec::with_capacity(these.len() * (COLUMNS.len() + 1));
    for (settlement, task) in these {
        let added = batches.get_mut(&task.batch);
        let added = added.ok_or(StoreError::RowCount { table: "batch", expected: 1, touched: 0 })?;
        let used = settlement.usage.as_ref().map(|u| u.counts).unwrap_or_default();
        let cost = settlement.usage.as_ref().map_or(0, |u| u.cost.nanos());
        let [input, cached, written, output] =
            [Measure::PromptTokens, Measure::CachedTokens, Measure::CacheWriteTokens, Measure::CompletionTokens]
                .map(|of| to_i64(used.of(of)));
        added.made = added.made.plus(used);
        let consumed = [input, cached, written, output, cost];
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
        values.push(settlement.now.micros().into());
        added.seq += 1;
    }
    Ok(values)
}

async fn end_tasks(tx: &WriteTx, values: Vec<Value>, tasks: usize) -> Result<(), StoreError> {
    let sql = |source: &Source| {
        let set = |value: &dyn Fn(usize, &str) -> String| {
            let set = COLUMNS.iter().zip(2..).map(|(column, place)| format!("{column} = {}", value(place, column)));
            set.collect::<Vec<_>>().join(", ")
        };
        match source {
            Source::One => {
                let set = set(&|place, _| format!("${place}"));
                format!("UPDATE task SET {set}, node_id = NULL WHERE id = $1")
            }
            Source::Many(rows) => {
                let (names, set) = (COLUMNS.join(", "), set(&|_, column| format!("v.{column}")));
                format!(
                    "WITH v(id, {names}) AS ({rows}) UPDATE task SET {set}, node_id = NULL FROM v WHERE task.id = v.id"
                )
            }
        }
    };
    exactly(tx.run_over(values, COLUMNS.len() + 1, sql).await?, tasks as u64, "task")
}

async fn count_ended(tx: &WriteTx, batch: BatchId, added: &Added) -> Result<(), StoreError> {
    let [input, cached, written, output, cost] = added.usage;
    let touched = tx
        .run(
            format!(
                "UPDATE batch SET completed = $2, failed = $3, input_tokens = {}, cached_tokens = {}, \
                 output_tokens = {}, cost_nano = cost_nano + $7, reasoning_tokens = {}, cache_write_tokens = {} \
                 WHERE id = $1",
                plus("input_tokens", 4),
                plus("cached_tokens", 5),
                plus("output_tokens", 6),
                plus("reasoning_tokens", 8),
                plus("cache_write_tokens", 9)
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
                written.into(),
            ],
        )
        .await?;
    exactly(touched, 1, "batch")
}

/// What a task has counted but tokens: few have any, and each of the others would pay for the columns.
async fn note_made(tx: &WriteTx, task: TaskId, counts: Counts) -> Result<(), StoreError> {
    let set: Vec<_> = made_columns().zip(2..).map(|(column, place)| format!("{column} = ${place}")).collect();
    let values: Vec<Value> = [task.uuid().into()].into_iter().chain(made_values(counts)).collect();
    exactly(tx.run(format!("UPDATE task SET {} WHERE id = $1", set.join(", ")), values).await?, 1, "task")
}

async fn count_made(tx: &WriteTx, batch: BatchId, counts: Counts) -> Result<(), StoreError> {
    let sum = |(column, place)| format!("{column} = {}", plus(&format!("coalesce({column}, 0)"), place));
    let set: Vec<_> = made_columns().zip(2..).map(sum).collect();
    let values: Vec<Value> = [batch.uuid().into()].into_iter().chain(made_values(counts)).collect();
    exactly(tx.run(format!("UPDATE batch SET {} WHERE id = $1", set.join(", ")), values).await?, 1, "batch")
}

/// A count of tokens and a parameter's more of them, as far as the column goes: what a model server claims must neither
/// refuse the end of a task (PostgreSQL) nor become a number with a fraction (SQLite).
fn plus(column: &str, parameter: usize) -> String {
    let most = i64::MAX;
    format!("CASE WHEN {column} > {most} - ${parameter} THEN {most} ELSE {column} + ${parameter} END")
}
