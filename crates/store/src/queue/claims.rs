//! Holds: the durable queue's hand-out of tasks to nodes.
//!
//! A claim raises the task's epoch; whatever comes back under an older one is refused. A claim lasts for as long as its
//! node's lease does, so a slow task on a live node is never run twice. What is asked here touches batches that are not
//! over and tasks that wait, and never the history.

use std::collections::{BTreeSet, HashMap, HashSet};

use batchin_db::{Rerun, Row, Value, WriteTx, both, marks, retried};
use batchin_domain::{
    AccountId, BatchId, BatchStatus, CallKind, KeyId, Priority, TaskId, TaskStatus, Timestamp, batch::TaskCounts,
};
use futures::join;
use uuid::Uuid;

use crate::{
    BlobRange, Chores, Claims, FencedError, NodeIdentity, StoreError,
    fence::still,
    queue::batches::counts,
    queue::waiting::WAITS_FOR_CAP,
    stored::{stored, unsigned},
};

/// A task under a node's claim.
#[derive(Clone, Debug)]
pub struct ClaimedTask {
    /// Names the task and the claim.
    pub claim: Claim,
    /// Its batch.
    pub batch: BatchId,
    /// The owner's name for it.
    pub custom_id: String,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// What its price follows from.
    pub priority: Priority,
    /// What it runs with: its priority, or high once its batch was promoted.
    pub rank: Priority,
    /// Whether its batch has a highest cost.
    pub capped: bool,
    /// What its batch says that it waits for: this task shows whether it still does.
    pub blocked: Option<String>,
    /// The model as asked for.
    pub model: String,
    /// The kind of call, or the stored number of one that this version does not know.
    pub call: Result<CallKind, i16>,
    /// Where its body lies.
    pub body: BlobRange,
    /// How often it has been claimed, this time included.
    pub attempts: u32,
    /// Where it stood in the queue.
    pub place: Place,
}

/// Where a task stands among those of its batch that wait: by when it is due, then by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    not_before: i64,
    idx: i64,
}

impl Place {
    /// Before all others.
    const FIRST: Self = Self { not_before: i64::MIN, idx: i64::MIN };
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

/// Tasks of a batch for one model that could be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The batch.
    pub batch: BatchId,
    /// Whose.
    pub account: AccountId,
    /// The model, as its tasks have it.
    pub model: String,
}

/// A batch that waits for something; one of its tasks shows whether it still does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What could be claimed.
    pub of: Backlog,
    /// What it was told to wait for.
    pub reason: String,
}

/// What is to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of which batch.
    pub batch: BatchId,
    /// For which model.
    pub model: String,
    /// At most so many tasks.
    pub tasks: u32,
    /// Those behind this place first. A database walks over what was claimed a moment ago as if it were still waiting, and
    /// need not where it is told where to begin.
    pub after: Option<Place>,
}

/// A batch whose window may pass before all its tasks have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotable {
    /// Names it.
    pub batch: BatchId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its window passes.
    pub expires_at: Timestamp,
    /// How its tasks stand.
    pub counts: TaskCounts,
}

/// What claiming needs to know about a batch.
struct Terms {
    account: AccountId,
    key: Option<KeyId>,
    priority: Priority,
    rank: Priority,
    capped: bool,
    blocked: Option<String>,
    input_blob: String,
}

// States are written out, since a partial index is not used for a parameter.

/// Batches whose tasks run.
const OPEN: &str = "b.status IN (0, 1)";
/// Of batch `b` and model `m`, something is due at `$3`. No EXISTS: PostgreSQL makes a join of one, and as long as it knows
/// nothing of the table it reads every task that waits for it.
const HAS_TASKS: &str = "(SELECT 1 FROM task t WHERE t.batch_id = b.id AND t.model = m.model AND t.state = 0 AND t.not_before <= $3 \
                         LIMIT 1) IS NOT NULL";
const _: () = assert!(BatchStatus::Pending.code() == 0 && BatchStatus::InProgress.code() == 1);
const _: () = assert!(TaskStatus::Pending.code() == 0);

impl Claims {
    /// Up to `limit` of what could be claimed of a rank, ordered by account, batch and model, from the account after
    /// `after` on, but nothing for the models in `without`. The rank is the batch's priority, or high once it has been
    /// promoted. What waits for something is not among it: see [`Claims::probes`].
    pub async fn backlog(
        &self,
        rank: Priority,
        without: &[String],
        (after, limit): (Option<AccountId>, u32),
        now: Timestamp,
    ) -> Result<Vec<Backlog>, StoreError> {
        let others = if without.is_empty() {
            String::new()
        } else {
            format!(" AND m.model NOT IN ({})", marks(without.len(), 5))
        };
        let sql = format!(
            "SELECT b.id, b.account_id, m.model FROM batch b JOIN batch_model m ON m.batch_id = b.id \
             WHERE {OPEN} AND b.blocked IS NULL AND b.rank = $1 AND b.account_id > $2{others} AND {HAS_TASKS} \
             ORDER BY b.rank, b.account_id, b.id, m.model LIMIT $4",
        );
        let after = after.map_or(Uuid::nil(), AccountId::uuid);
        let values: [Value; 4] = [rank.code().into(), after.into(), now.micros().into(), i64::from(limit).into()];
        let values = values.into_iter().chain(without.iter().map(|model| model.as_str().into()));
        self.db.all(sql, values.collect::<Vec<_>>()).await?.iter().map(backlog).collect()
    }

    /// Batches that wait for something and are due to be looked at, longest due first, but for nothing that only the
    /// models in `without` are wanted for. Of an account's that wait for the same there is one, so that they hide no
    /// other account's; a highest cost is each batch's own.
    pub async fn probes(&self, without: &[String], limit: u32, now: Timestamp) -> Result<Vec<Probe>, StoreError> {
        let others = if without.is_empty() {
            String::new()
        } else {
            format!(" AND m.model NOT IN ({})", marks(without.len(), 3))
        };
        // The numbers of parameters are those of HAS_TASKS. CROSS: SQLite begins with the few batches that wait.
        let sql = format!(
            "WITH due AS MATERIALIZED (SELECT b.id, b.account_id, b.blocked, b.blocked_until, m.model \
             FROM batch b CROSS JOIN batch_model m WHERE m.batch_id = b.id AND {OPEN} AND b.blocked IS NOT NULL \
             AND b.blocked_until <= $1{others} AND {}), \
             turns AS (SELECT id, account_id, blocked, blocked_until, model, row_number() OVER (\
             PARTITION BY account_id, blocked, CASE WHEN blocked = '{WAITS_FOR_CAP}' THEN id END \
             ORDER BY blocked_until, id, model) AS turn FROM due) \
             SELECT id, account_id, blocked, model FROM turns WHERE turn = 1 ORDER BY blocked_until, id, model LIMIT $2",
            HAS_TASKS.replace("$3", "$1"),
        );
        let values = [now.micros().into(), i64::from(limit).into()];
        let values = values.into_iter().chain(without.iter().map(|model| model.as_str().into()));
        let rows = self.db.all(sql, values.collect::<Vec<_>>()).await?;
        rows.iter().map(|row| Ok(Probe { of: backlog(row)?, reason: row.get("blocked")? })).collect()
    }

    /// Claims up to so many tasks of each share, oldest first but for what stands before its `after`. Where fewer came than were
    /// asked for, no more were free.
    ///
    /// After an error, tasks may be claimed that the caller knows nothing of: [`Claims::claims_of`] tells.
    pub async fn claim(
        &self,
        node: NodeIdentity,
        shares: &[Share],
        now: Timestamp,
    ) -> Result<Vec<ClaimedTask>, FencedError> {
        // Every transaction locks rows in one order.
        let mut shares = shares.to_vec();
        shares.sort_unstable_by(|a, b| (a.batch, &a.model).cmp(&(b.batch, &b.model)));
        let run = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let (ours, terms) = join!(still(&tx, node), terms_of(&tx, &shares));
            let (ours, terms) = both(ours, terms)?;
            if !ours {
                return Ok(None);
            }
            let mut tasks = Vec::new();
            let mut begun = BTreeSet::new();
            for share in &shares {
                let Some((terms, pending)) = terms.get(&share.batch) else { continue };
                let mut claimed = take(&tx, node, (share, terms), now).await?;
                let left = share.tasks.saturating_sub(u32::try_from(claimed.len()).unwrap_or(u32::MAX));
                if share.after.is_some() && left > 0 {
                    let rest = Share { tasks: left, after: None, ..share.clone() };
                    claimed.extend(take(&tx, node, (&rest, terms), now).await?);
                }
                if *pending && !claimed.is_empty() {
                    begun.insert(share.batch);
                }
                tasks.extend(claimed);
            }
            if !tasks.is_empty() {
                start_batches(&tx, &begun, now).await?;
                tx.commit().await?;
            }
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
            let tx = self.db.write().await?;
            let values = sorted.iter().flat_map(|task| -> [Value; 6] {
                [
                    task.claim.task.uuid().into(),
                    task.claim.epoch.into(),
                    TaskStatus::Pending.code().into(),
                    task.not_before.micros().into(),
                    i64::from(!task.counts).into(),
                    TaskStatus::Running.code().into(),
                ]
            });
            let again = "UPDATE task SET state = $3, node_id = NULL, epoch = epoch + 1, not_before = $4, \
                         attempts = attempts - $5 WHERE id = $1 AND epoch = $2 AND state = $6";
            tx.run_each(again, values.collect(), 6).await?;
            tx.commit().await
        })
        .await
    }

    /// The claims that a node still has: what it runs beside these was cancelled or taken from it.
    pub async fn claims_of(&self, node: NodeIdentity) -> Result<HashSet<Claim>, StoreError> {
        let rows = self
            .db
            .all(
                format!("SELECT id, epoch FROM task WHERE node_id = $1 AND state = {}", TaskStatus::Running.code()),
                [node.id.uuid().into()],
            )
            .await?;
        rows.iter().map(|row| Ok(Claim { task: TaskId::new(row.get("id")?), epoch: row.get("epoch")? })).collect()
    }

    /// How many tasks of a batch run on any node.
    pub async fn running_tasks(&self, batch: BatchId) -> Result<u64, StoreError> {
        let sql =
            format!("SELECT count(*) AS n FROM task WHERE batch_id = $1 AND state = {}", TaskStatus::Running.code());
        let row = self.db.one(sql, [batch.uuid().into()]).await?;
        row.map_or(Ok(0), |row| unsigned(&row, "task", "n"))
    }

    /// How many tasks have not ended, per priority: a gauge, not a bill. Costs what the batches cost that are not over.
    pub async fn queue_depth(&self, priority: Priority) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT CAST(coalesce(sum(total - completed - failed - cancelled - expired), 0) AS bigint) AS n FROM batch \
             WHERE finished_at IS NULL AND status IN ({}, {}) AND rank = $1",
            BatchStatus::Pending.code(),
            BatchStatus::InProgress.code()
        );
        let row = self.db.one(sql, [priority.code().into()]).await?;
        row.map_or(Ok(0), |row| unsigned(&row, "batch", "n"))
    }
}

impl Chores {
    /// Batches of low priority whose windows pass next.
    pub async fn promotable(&self, limit: u32) -> Result<Vec<Promotable>, StoreError> {
        let sql = format!(
            "SELECT id, created_at, expires_at, total, completed, failed, cancelled, expired FROM batch \
             WHERE expires_at IS NOT NULL AND status IN ({}, {}, {}) AND rank = $1 ORDER BY expires_at LIMIT $2",
            BatchStatus::Pending.code(),
            BatchStatus::InProgress.code(),
            BatchStatus::Validating.code()
        );
        let rows = self.db.all(sql, [Priority::Low.code().into(), i64::from(limit).into()]).await?;
        let promotable = |row: &Row| -> Result<Promotable, StoreError> {
            Ok(Promotable {
                batch: BatchId::new(row.get("id")?),
                created_at: Timestamp::from_micros(row.get("created_at")?),
                expires_at: Timestamp::from_micros(row.get("expires_at")?),
                counts: counts(row)?,
            })
        };
        rows.iter().map(promotable).collect()
    }

    /// From now on these batches' tasks run with the high ones, at their own price.
    pub async fn promote(&self, batches: &[BatchId]) -> Result<(), StoreError> {
        let mut sorted = batches.to_vec();
        sorted.sort_unstable();
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            for batch in &sorted {
                let values: [Value; 2] = [batch.uuid().into(), Priority::High.code().into()];
                tx.run("UPDATE batch SET rank = $2 WHERE id = $1", values).await?;
            }
            tx.commit().await
        })
        .await
    }
}

/// The batches of these shares whose tasks may run, and whether none has yet.
async fn terms_of(tx: &WriteTx, shares: &[Share]) -> Result<HashMap<BatchId, (Terms, bool)>, StoreError> {
    if shares.is_empty() {
        return Ok(HashMap::new());
    }
    let batches: BTreeSet<BatchId> = shares.iter().map(|share| share.batch).collect();
    let running = format!("{}, {}", BatchStatus::Pending.code(), BatchStatus::InProgress.code());
    let sql = |these: &str| {
        format!(
            "SELECT id, account_id, key_id, priority, rank, status, max_cost_nano, blocked, input_blob FROM batch \
             WHERE id {these} AND status IN ({running})"
        )
    };
    let mut terms = HashMap::with_capacity(batches.len());
    for row in tx.all_of(batches.into_iter().map(|batch| batch.uuid().into()).collect(), Vec::new(), sql).await? {
        let one = Terms {
            account: AccountId::new(row.get("account_id")?),
            key: row.get::<Option<_>>("key_id")?.map(KeyId::new),
            priority: stored(&row, "batch", "priority")?,
            rank: stored(&row, "batch", "rank")?,
            capped: row.get::<Option<i64>>("max_cost_nano")?.is_some(),
            blocked: row.get("blocked")?,
            input_blob: row.get("input_blob")?,
        };
        let pending = row.get::<i16>("status")? == BatchStatus::Pending.code();
        terms.insert(BatchId::new(row.get("id")?), (one, pending));
    }
    Ok(terms)
}

fn backlog(row: &Row) -> Result<Backlog, StoreError> {
    Ok(Backlog {
        batch: BatchId::new(row.get("id")?),
        account: AccountId::new(row.get("account_id")?),
        model: row.get("model")?,
    })
}

/// Puts tasks of a batch under the node's claim.
async fn take(
    tx: &WriteTx,
    node: NodeIdentity,
    (share, terms): (&Share, &Terms),
    now: Timestamp,
) -> Result<Vec<ClaimedTask>, StoreError> {
    // Materialised: a planner that ran the limited query once for every row would find others each time.
    let sql = format!(
        "WITH picked(pick) AS MATERIALIZED (SELECT id FROM task WHERE batch_id = $2 AND model = $5 \
         AND state = {pending} AND not_before <= $3 AND (not_before, idx) > ($6, $7) \
         ORDER BY not_before, idx LIMIT $4{lock}) \
         UPDATE task SET state = {running}, node_id = $1, epoch = epoch + 1, attempts = attempts + 1 FROM picked \
         WHERE id = pick \
         RETURNING id, epoch, custom_id, model, endpoint, body_offset, body_len, attempts, not_before, idx",
        running = TaskStatus::Running.code(),
        pending = TaskStatus::Pending.code(),
        lock = tx.dialect.skip_locked(),
    );
    let after = share.after.unwrap_or(Place::FIRST);
    let values: [Value; 7] = [
        node.id.uuid().into(),
        share.batch.uuid().into(),
        now.micros().into(),
        i64::from(share.tasks).into(),
        share.model.as_str().into(),
        after.not_before.into(),
        after.idx.into(),
    ];
    let rows = tx.all(sql, values).await?;
    let mut tasks = Vec::with_capacity(rows.len());
    for row in &rows {
        let number = |column| unsigned(row, "task", column);
        let call: i16 = row.get("endpoint")?;
        tasks.push(ClaimedTask {
            claim: Claim { task: TaskId::new(row.get("id")?), epoch: row.get("epoch")? },
            batch: share.batch,
            custom_id: row.get("custom_id")?,
            account: terms.account,
            key: terms.key,
            priority: terms.priority,
            rank: terms.rank,
            capped: terms.capped,
            blocked: terms.blocked.clone(),
            model: row.get("model")?,
            call: CallKind::from_code(call).ok_or(call),
            body: BlobRange {
                blob: terms.input_blob.clone(),
                offset: number("body_offset")?,
                len: number("body_len")?,
            },
            attempts: u32::try_from(number("attempts")?).unwrap_or(u32::MAX),
            place: Place { not_before: row.get("not_before")?, idx: row.get("idx")? },
        });
    }
    tasks.sort_unstable_by_key(|task| task.claim.task);
    Ok(tasks)
}

async fn start_batches(tx: &WriteTx, batches: &BTreeSet<BatchId>, now: Timestamp) -> Result<(), StoreError> {
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
