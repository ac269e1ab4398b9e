//! Holds: the durable queue's hand-out of tasks to nodes.
//!
//! A claim raises the task's epoch; whatever comes back under an older one is refused. A claim lasts for as long as its
//! node's lease does, so a slow task on a live node is never run twice.

use std::collections::HashSet;

use batchin_domain::{AccountId, BatchId, BatchStatus, KeyId, Priority, TaskId, TaskStatus, Timestamp};
use sea_orm::Value;
use uuid::Uuid;

use crate::{
    BlobRange, FencedError, NodeIdentity, Store, StoreError,
    batches::{priority_value, stored_priority},
    connect::{Rerun, WriteTx, retried},
    dialect::{marks, runs},
    nodes::still,
    row::Row,
};

/// A task under a node's claim.
#[derive(Clone, Debug)]
pub struct ClaimedTask {
    /// Names the task and the claim.
    pub claim: Claim,
    /// Its batch.
    pub batch: BatchId,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// How urgent it is.
    pub priority: Priority,
    /// The model as asked for.
    pub model: String,
    /// The kind of call, as its stored number.
    pub endpoint: i16,
    /// Where its body lies.
    pub body: BlobRange,
    /// How often it has been claimed, this time included.
    pub attempts: u32,
}

/// A claim: old epochs are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// The claim's epoch.
    pub epoch: i64,
}

/// A claimed task that goes back to the queue.
#[derive(Clone, Copy, Debug)]
pub struct Requeue {
    /// What goes back.
    pub claim: Claim,
    /// Not to be claimed again before.
    pub not_before: Timestamp,
    /// Whether this try counts towards the task's bound; waiting for money or for room does not.
    pub counts: bool,
}

impl Store {
    /// Claims up to `limit` tasks of a priority, oldest first.
    ///
    /// After an error, tasks may be claimed that the caller knows nothing of: [`Store::claims_of`] tells.
    pub async fn claim(
        &self,
        node: NodeIdentity,
        priority: Priority,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ClaimedTask>, FencedError> {
        // The state is written out, since a partial index is not used for a parameter.
        let ready = format!(
            "SELECT id FROM task WHERE state = {} AND priority = $1 AND not_before <= $2 \
             ORDER BY priority, not_before, id LIMIT $3",
            TaskStatus::Pending.code()
        );
        let values =
            |limit: u32| -> [Value; 3] { [priority_value(priority), now.micros().into(), i64::from(limit).into()] };
        let run = retried(Rerun::IfRolledBack, || async {
            // Most looks at the queue find nothing; they take no write lock.
            if limit == 0 || self.all(ready.as_str(), values(1)).await?.is_empty() {
                return Ok(Some(Vec::new()));
            }
            let tx = self.write().await?;
            if !still(&tx, node).await? {
                return Ok(None);
            }
            let rows = tx.all(format!("{ready}{}", tx.dialect.skip_locked()), values(limit)).await?;
            let ids = rows.iter().map(|row| row.try_get("", "id")).collect::<Result<Vec<Uuid>, _>>()?;
            let tasks = take(&tx, node, &ids).await?;
            start_batches(&tx, &tasks, now).await?;
            tx.commit().await?;
            Ok(Some(tasks))
        });
        match run.await {
            Ok(Some(tasks)) => Ok(tasks),
            Ok(None) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Returns tasks to the queue. A claim that is out of date is passed over.
    pub async fn requeue(&self, tasks: &[Requeue]) -> Result<(), StoreError> {
        // Every transaction locks rows in one order.
        let mut sorted = tasks.to_vec();
        sorted.sort_by_key(|task| task.claim.task);
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            for task in &sorted {
                tx.run(
                    "UPDATE task SET state = $3, node_id = NULL, epoch = epoch + 1, not_before = $4, \
                 attempts = attempts - $5 WHERE id = $1 AND epoch = $2 AND state = $6",
                    [
                        task.claim.task.uuid().into(),
                        task.claim.epoch.into(),
                        TaskStatus::Pending.code().into(),
                        task.not_before.micros().into(),
                        i64::from(!task.counts).into(),
                        TaskStatus::Running.code().into(),
                    ],
                )
                .await?;
            }
            tx.commit().await
        })
        .await
    }

    /// The claims that a node still has: what it runs beside these was cancelled or taken from it.
    pub async fn claims_of(&self, node: NodeIdentity) -> Result<HashSet<Claim>, StoreError> {
        let rows = self
            .all(
                format!("SELECT id, epoch FROM task WHERE node_id = $1 AND state = {}", TaskStatus::Running.code()),
                [node.id.uuid().into()],
            )
            .await?;
        rows.iter()
            .map(|row| Ok(Claim { task: TaskId::new(row.try_get("", "id")?), epoch: row.try_get("", "epoch")? }))
            .collect()
    }

    /// How many tasks wait, per priority, counting at most `cap` of each: a gauge, not a bill.
    pub async fn queue_depth(&self, priority: Priority, cap: u32) -> Result<u64, StoreError> {
        let row = self
            .one(
                format!(
                    "SELECT count(*) AS n FROM (SELECT 1 AS one FROM task WHERE state = {} AND priority = $1 LIMIT $2) q",
                    TaskStatus::Pending.code()
                ),
                [priority_value(priority), i64::from(cap).into()],
            )
            .await?;
        let count: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// Puts the rows under the node's claim and reads what running them needs.
async fn take(tx: &WriteTx, node: NodeIdentity, ids: &[Uuid]) -> Result<Vec<ClaimedTask>, StoreError> {
    let mut tasks = Vec::with_capacity(ids.len());
    let mut rest = ids;
    for run in runs(ids.len()) {
        let (now, later) = rest.split_at(run);
        rest = later;
        let fixed: [Value; 3] =
            [node.id.uuid().into(), TaskStatus::Running.code().into(), TaskStatus::Pending.code().into()];
        let values: Vec<Value> = fixed.into_iter().chain(now.iter().map(|id| (*id).into())).collect();
        tx.run(
            format!(
                "UPDATE task SET state = $2, node_id = $1, epoch = epoch + 1, attempts = attempts + 1 \
                 WHERE state = $3 AND id IN ({})",
                marks(run, 4)
            ),
            values,
        )
        .await?;
        let fixed: [Value; 2] = [node.id.uuid().into(), TaskStatus::Running.code().into()];
        let values: Vec<Value> = fixed.into_iter().chain(now.iter().map(|id| (*id).into())).collect();
        let rows = tx
            .all(
                format!(
                    "SELECT t.id, t.epoch, t.batch_id, t.account_id, b.key_id, t.priority, t.model, t.endpoint, \
                     b.input_blob, t.body_offset, t.body_len, t.attempts FROM task t JOIN batch b ON b.id = t.batch_id \
                     WHERE t.node_id = $1 AND t.state = $2 AND t.id IN ({})",
                    marks(run, 3)
                ),
                values,
            )
            .await?;
        for row in &rows {
            tasks.push(claimed(row)?);
        }
    }
    tasks.sort_by_key(|task| task.claim.task);
    Ok(tasks)
}

async fn start_batches(tx: &WriteTx, tasks: &[ClaimedTask], now: Timestamp) -> Result<(), StoreError> {
    let mut batches: Vec<BatchId> = tasks.iter().map(|task| task.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    for batch in batches {
        tx.run(
            "UPDATE batch SET status = $2, started_at = $3 WHERE id = $1 AND status = $4",
            [
                batch.uuid().into(),
                BatchStatus::InProgress.code().into(),
                now.micros().into(),
                BatchStatus::Pending.code().into(),
            ],
        )
        .await?;
    }
    Ok(())
}

fn claimed(row: &Row) -> Result<ClaimedTask, StoreError> {
    let unsigned = |column: &'static str| -> Result<u64, StoreError> {
        u64::try_from(row.try_get::<i64>("", column)?).map_err(|_| StoreError::Corrupt { table: "task", column })
    };
    Ok(ClaimedTask {
        claim: Claim { task: TaskId::new(row.try_get("", "id")?), epoch: row.try_get("", "epoch")? },
        batch: BatchId::new(row.try_get("", "batch_id")?),
        account: AccountId::new(row.try_get("", "account_id")?),
        key: row.try_get::<Option<_>>("", "key_id")?.map(KeyId::new),
        priority: stored_priority(row)?,
        model: row.try_get("", "model")?,
        endpoint: row.try_get("", "endpoint")?,
        body: BlobRange {
            blob: row.try_get("", "input_blob")?,
            offset: unsigned("body_offset")?,
            len: unsigned("body_len")?,
        },
        attempts: u32::try_from(unsigned("attempts")?).unwrap_or(u32::MAX),
    })
}
