//! Holds: one group of settlements as one transaction.
//!
//! Rows are locked in the order node, task, batch, account, purse, lease, here and everywhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use batchin_domain::{
    AccountId, BatchId, BatchStatus, Purse, PurseKind, TaskStatus, batch::TaskCounts, ledger::Movement,
};
use sea_orm::Value;
use uuid::Uuid;

use crate::{
    CommitError, NodeIdentity, Outcome, Settlement, Store, StoreError, TaskEnd, UsageRecord,
    accounts::movement_code,
    commit::Before,
    connect::WriteTx,
    dialect::{Dialect, Type, marks, runs},
    error::exactly,
    nodes::still,
};

/// Writes a group.
pub(super) async fn group(
    store: &Store,
    node: NodeIdentity,
    settlements: &[Settlement],
    before: Before,
) -> Result<Vec<Result<(), CommitError>>, StoreError> {
    let tx = store.write().await?;
    if !still(&tx, node).await? {
        return Ok(vec![Err(CommitError::Fenced); settlements.len()]);
    }
    let known = match before {
        Before::Nothing => HashSet::new(),
        Before::Perhaps => known_charges(&tx, settlements).await?,
    };
    let mut current = current_claims(&tx, settlements).await?;
    let mut results = Vec::with_capacity(settlements.len());
    let mut fresh = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        if known.contains(&settlement.charge_id.uuid()) {
            results.push(Ok(()));
        // A claim ends once, in this group too.
        } else if settlement.task.as_ref().is_some_and(|t| !current.remove(&(t.task.uuid(), t.epoch))) {
            results.push(Err(CommitError::StaleTask));
        } else {
            results.push(Ok(()));
            fresh.push(settlement);
        }
    }
    if fresh.is_empty() {
        return Ok(results);
    }
    finish_tasks(&tx, &fresh).await?;
    count_batches(&tx, &fresh).await?;
    post_charges(&tx, node, &fresh).await?;
    write_usage(&tx, &fresh).await?;
    remember_answers(&tx, &fresh).await?;
    batchin_faults::point("commit.written");
    tx.commit().await?;
    Ok(results)
}

/// Which of these settlements are in the ledger already.
async fn known_charges(tx: &WriteTx, settlements: &[Settlement]) -> Result<HashSet<Uuid>, StoreError> {
    let mut known = HashSet::new();
    for settlement in settlements {
        let id = settlement.charge_id.uuid();
        let written = match &settlement.task {
            // Without a charge the task tells: a claim's epoch stays on it when that claim ends it.
            Some(task) if settlement.charge.is_zero() => tx.one(
                "SELECT id FROM task WHERE id = $1 AND epoch = $2 AND state IN ($3, $4)",
                vec![
                    task.task.uuid().into(),
                    task.epoch.into(),
                    TaskStatus::Completed.code().into(),
                    TaskStatus::Failed.code().into(),
                ],
            ),
            _ => tx.one("SELECT id FROM transfer WHERE id = $1", vec![id.into()]),
        };
        if written.await?.is_some() {
            known.insert(id);
        }
    }
    Ok(known)
}

/// The (task, epoch) pairs of this group that are still running under that epoch; locks them.
async fn current_claims(tx: &WriteTx, settlements: &[Settlement]) -> Result<HashSet<(Uuid, i64)>, StoreError> {
    let ids: BTreeSet<Uuid> = settlements.iter().filter_map(|s| s.task.as_ref()).map(|t| t.task.uuid()).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let mut current = HashSet::with_capacity(ids.len());
    for now in in_runs(&ids) {
        let sql = format!(
            "SELECT id, epoch FROM task WHERE state = $1 AND id IN ({}) ORDER BY id{}",
            marks(now.len(), 2),
            tx.dialect.for_update()
        );
        let values = std::iter::once(Value::from(TaskStatus::Running.code())).chain(now.iter().map(|id| (*id).into()));
        for row in tx.all(sql, values.collect::<Vec<_>>()).await? {
            current.insert((row.try_get("", "id")?, row.try_get("", "epoch")?));
        }
    }
    Ok(current)
}

async fn finish_tasks(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    const COLUMNS: [Type; 10] = [
        Type::Uuid,
        Type::BigInt,
        Type::Text,
        Type::BigInt,
        Type::BigInt,
        Type::Text,
        Type::Text,
        Type::BigInt,
        Type::BigInt,
        Type::BigInt,
    ];
    let ending: Vec<_> = fresh.iter().filter_map(|s| s.task.as_ref().map(|task| (*s, task))).collect();
    for now in in_runs(&ending) {
        let run = now.len();
        let mut values: Vec<Value> = Vec::with_capacity(run * COLUMNS.len() + 1);
        for (settlement, task) in now {
            let units = settlement.usage.as_ref().map(|u| u.units).unwrap_or_default();
            let cost = settlement.usage.as_ref().map_or(0, |u| u.cost.nanos());
            let (state, blob, offset, len, code, message) = match &task.end {
                TaskEnd::Completed { result } => (
                    TaskStatus::Completed,
                    Some(result.blob.clone()),
                    Some(to_i64(result.offset)),
                    Some(to_i64(result.len)),
                    None,
                    None,
                ),
                TaskEnd::Failed { code, message } => {
                    (TaskStatus::Failed, None, None, None, Some(code.clone()), Some(message.clone()))
                }
            };
            values.extend([
                task.task.uuid().into(),
                i64::from(state.code()).into(),
                blob.into(),
                offset.into(),
                len.into(),
                code.into(),
                message.into(),
                to_i64(units.input).into(),
                to_i64(units.output).into(),
                cost.into(),
            ]);
        }
        values.push(now.first().map_or(0, |(s, _)| s.now.micros()).into());
        let sql = format!(
            "WITH v(id, state, blob, off, len, code, message, input, output, cost) AS ({}) \
             UPDATE task SET state = v.state, node_id = NULL, result_blob = v.blob, result_offset = v.off, \
             result_len = v.len, error_code = v.code, error_message = v.message, input_tokens = v.input, \
             output_tokens = v.output, cost_nano = v.cost, finished_at = ${now_at} FROM v WHERE task.id = v.id",
            tx.dialect.values(run, &COLUMNS),
            now_at = run * COLUMNS.len() + 1,
        );
        exactly(tx.run(sql, values).await?, run as u64, "task")?;
    }
    Ok(())
}

/// Counts ended tasks on their batches and ends the batches whose last task that was.
async fn count_batches(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    let mut ended: BTreeMap<BatchId, (u32, u32)> = BTreeMap::new();
    let mut now = None;
    for (settlement, task) in fresh.iter().filter_map(|s| s.task.as_ref().map(|t| (s, t))) {
        let counts = ended.entry(task.batch).or_default();
        match task.end {
            TaskEnd::Completed { .. } => counts.0 += 1,
            TaskEnd::Failed { .. } => counts.1 += 1,
        }
        now = Some(settlement.now);
    }
    let Some(now) = now else { return Ok(()) };
    for (batch, (completed, failed)) in ended {
        count_batch(tx, batch, TaskCounts { completed, failed, ..TaskCounts::default() }, now).await?;
    }
    Ok(())
}

/// Adds ended tasks to a batch's counters and, when none is left, sets its final status. Locks the batch. Returns where
/// the batch stands then.
pub(crate) async fn count_batch(
    tx: &WriteTx,
    batch: BatchId,
    more: TaskCounts,
    now: batchin_domain::Timestamp,
) -> Result<BatchStatus, StoreError> {
    let sql = format!(
        "SELECT status, total, completed, failed, cancelled FROM batch WHERE id = $1{}",
        tx.dialect.for_update()
    );
    let row = tx.one(sql, [batch.uuid().into()]).await?;
    let row = row.ok_or(StoreError::RowCount { table: "batch", expected: 1, touched: 0 })?;
    let count = |column: &'static str| -> Result<u32, StoreError> {
        u32::try_from(row.try_get::<i64>("", column)?).map_err(|_| StoreError::Corrupt { table: "batch", column })
    };
    let counts = TaskCounts {
        total: count("total")?,
        completed: count("completed")? + more.completed,
        failed: count("failed")? + more.failed,
        cancelled: count("cancelled")? + more.cancelled,
    };
    let status = BatchStatus::from_code(row.try_get("", "status")?)
        .ok_or(StoreError::Corrupt { table: "batch", column: "status" })?;
    let outcome = if status.is_final() { None } else { counts.outcome() };
    let touched = tx
        .run(
            "UPDATE batch SET completed = $2, failed = $3, cancelled = $4, status = coalesce($5, status), \
             blocked = CASE WHEN $5 IS NULL THEN blocked ELSE NULL END, \
             finished_at = CASE WHEN $5 IS NULL THEN finished_at ELSE $6 END WHERE id = $1",
            [
                batch.uuid().into(),
                i64::from(counts.completed).into(),
                i64::from(counts.failed).into(),
                i64::from(counts.cancelled).into(),
                outcome.map(BatchStatus::code).into(),
                now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "batch")?;
    Ok(outcome.unwrap_or(status))
}

/// Charges, balances, purses and leases.
async fn post_charges(tx: &WriteTx, node: NodeIdentity, fresh: &[&Settlement]) -> Result<(), StoreError> {
    let charged: Vec<&Settlement> = fresh.iter().copied().filter(|s| !s.charge.is_zero()).collect();
    if charged.is_empty() {
        return Ok(());
    }
    let mut sums: BTreeMap<AccountId, (i64, i64)> = BTreeMap::new();
    let mut purses: BTreeMap<Purse, (i64, i64)> = BTreeMap::new();
    for settlement in &charged {
        let nanos = settlement.charge.nanos();
        let sum = sums.entry(settlement.account).or_default();
        sum.0 = sum.0.saturating_add(nanos);
        sum.1 += 1;
        if let Some(key) = settlement.key {
            let purse = purses.entry(Purse::Budget(key, settlement.month)).or_default();
            purse.0 = purse.0.saturating_add(nanos);
            purse.1 = purse.1.saturating_add(if settlement.budget_held { nanos } else { 0 });
        }
    }
    let sums: Vec<_> = sums.into_iter().collect();
    let mut next_seq = post_to_accounts(tx, &sums).await?;
    let balances: Vec<_> = sums.iter().map(|(account, (sum, _))| (Purse::Balance(*account), *sum)).collect();
    post_to_leases(tx, node, PurseKind::Balance, &balances).await?;
    post_to_budgets(tx, node, &purses.into_iter().collect::<Vec<_>>()).await?;
    for now in in_runs(&charged) {
        insert_transfers(tx, now, &mut next_seq).await?;
    }
    Ok(())
}

/// Posts each account's sum; returns the sequence number that each account's first new charge gets.
async fn post_to_accounts(
    tx: &WriteTx,
    sums: &[(AccountId, (i64, i64))],
) -> Result<HashMap<AccountId, i64>, StoreError> {
    const COLUMNS: [Type; 3] = [Type::Uuid, Type::BigInt, Type::BigInt];
    let mut next_seq = HashMap::with_capacity(sums.len());
    for now in in_runs(sums) {
        if tx.dialect == Dialect::Postgres && now.len() > 1 {
            // An UPDATE of many rows locks them in no order.
            let sql = format!("SELECT 1 FROM account WHERE id IN ({}) ORDER BY id FOR UPDATE", marks(now.len(), 1));
            tx.run(sql, now.iter().map(|(account, _)| account.uuid().into()).collect::<Vec<_>>()).await?;
        }
        let sql = format!(
            "WITH v(owner, amount, charges) AS ({}) UPDATE account SET posted_debit = posted_debit + v.amount, \
             pending_debit = pending_debit - v.amount, last_seq = last_seq + v.charges FROM v \
             WHERE account.id = v.owner RETURNING id, last_seq",
            tx.dialect.values(now.len(), &COLUMNS)
        );
        let values = now.iter().flat_map(|(account, (sum, count))| -> [Value; 3] {
            [account.uuid().into(), (*sum).into(), (*count).into()]
        });
        let rows = tx.all(sql, values.collect::<Vec<_>>()).await?;
        exactly(rows.len() as u64, now.len() as u64, "account")?;
        for row in rows {
            next_seq.insert(AccountId::new(row.try_get("", "id")?), row.try_get("", "last_seq")?);
        }
    }
    for (account, (_, count)) in sums {
        next_seq.entry(*account).and_modify(|seq| *seq = *seq - count + 1);
    }
    Ok(next_seq)
}

/// Counts charges for their keys' months, and takes what was held on a budget from what is leased of it.
async fn post_to_budgets(tx: &WriteTx, node: NodeIdentity, purses: &[(Purse, (i64, i64))]) -> Result<(), StoreError> {
    const COLUMNS: [Type; 3] = [Type::Uuid, Type::BigInt, Type::BigInt];
    let code = PurseKind::Budget.code();
    for now in in_runs(purses) {
        let values = now.iter().flat_map(|(purse, (spent, _))| -> [Value; 4] {
            [code.into(), purse.owner().into(), purse.window().into(), (*spent).into()]
        });
        let sql = format!(
            "INSERT INTO purse (kind, owner, win, spent) {} ON CONFLICT (kind, owner, win) \
             DO UPDATE SET spent = purse.spent + excluded.spent",
            tx.dialect.rows(now.len(), 4)
        );
        exactly(tx.run(sql, values.collect::<Vec<_>>()).await?, now.len() as u64, "purse")?;
    }
    let held: Vec<_> =
        purses.iter().filter(|(_, (_, held))| *held > 0).map(|(purse, (_, held))| (*purse, *held)).collect();
    for now in in_runs(&held) {
        let sql = format!(
            "WITH v(owner, win, amount) AS ({}) UPDATE purse SET leased = leased - v.amount FROM v \
             WHERE purse.kind = {code} AND purse.owner = v.owner AND purse.win = v.win",
            tx.dialect.values(now.len(), &COLUMNS)
        );
        exactly(tx.run(sql, amounts(now)).await?, now.len() as u64, "purse")?;
    }
    post_to_leases(tx, node, PurseKind::Budget, &held).await
}

/// Takes what was charged from what the node has leased. Whoever changes a lease has its purse locked, so the order in
/// which these rows are locked does not matter.
async fn post_to_leases(
    tx: &WriteTx,
    node: NodeIdentity,
    kind: PurseKind,
    charged: &[(Purse, i64)],
) -> Result<(), StoreError> {
    const COLUMNS: [Type; 3] = [Type::Uuid, Type::BigInt, Type::BigInt];
    for now in in_runs(charged) {
        let sql = format!(
            "WITH v(owner, win, amount) AS ({}) UPDATE lease SET outstanding = outstanding - v.amount FROM v \
             WHERE lease.kind = {} AND lease.owner = v.owner AND lease.win = v.win AND lease.node_id = ${}",
            tx.dialect.values(now.len(), &COLUMNS),
            kind.code(),
            now.len() * COLUMNS.len() + 1,
        );
        let mut values = amounts(now);
        values.push(node.id.uuid().into());
        exactly(tx.run(sql, values).await?, now.len() as u64, "lease")?;
    }
    Ok(())
}

fn amounts(purses: &[(Purse, i64)]) -> Vec<Value> {
    let one = |(purse, amount): &(Purse, i64)| -> [Value; 3] {
        [purse.owner().into(), purse.window().into(), (*amount).into()]
    };
    purses.iter().flat_map(one).collect()
}

/// The slice in pieces of [`runs`].
fn in_runs<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    runs(all.len()).map(move |run| {
        let (now, later) = rest.split_at(run);
        rest = later;
        now
    })
}

async fn insert_transfers(
    tx: &WriteTx,
    charged: &[&Settlement],
    next_seq: &mut HashMap<AccountId, i64>,
) -> Result<(), StoreError> {
    const COLUMNS: usize = 8;
    let mut values: Vec<Value> = Vec::with_capacity(charged.len() * COLUMNS);
    for settlement in charged {
        let seq = next_seq.get_mut(&settlement.account);
        let seq = seq.ok_or(StoreError::RowCount { table: "account", expected: 1, touched: 0 })?;
        values.extend([
            settlement.charge_id.uuid().into(),
            settlement.account.uuid().into(),
            (*seq).into(),
            movement_code(Movement::Charge).into(),
            settlement.charge.nanos().into(),
            settlement.usage.as_ref().map(|u| u.request.uuid()).into(),
            settlement.usage.as_ref().map(|u| u.price_version.0).into(),
            settlement.now.micros().into(),
        ]);
        *seq += 1;
    }
    let sql = format!(
        "INSERT INTO transfer (id, account_id, seq, movement, amount, request_id, price_version, created_at) {}",
        tx.dialect.rows(charged.len(), COLUMNS)
    );
    exactly(tx.run(sql, values).await?, charged.len() as u64, "transfer")
}

async fn write_usage(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    const COLUMNS: usize = 18;
    let used = latest_usage(fresh);
    let larger = tx.dialect.larger();
    for now in in_runs(&used) {
        let run = now.len();
        let mut values: Vec<Value> = Vec::with_capacity(run * COLUMNS);
        for (settlement, usage) in now {
            values.extend([
                usage.request.uuid().into(),
                settlement.account.uuid().into(),
                settlement.key.map(batchin_domain::KeyId::uuid).into(),
                usage.model.as_str().into(),
                usage.endpoint.into(),
                i16::try_from(usage.class.index()).unwrap_or(i16::MAX).into(),
                usage.task.map(|(batch, _)| batch.uuid()).into(),
                usage.task.map(|(_, task)| task.uuid()).into(),
                to_i64(usage.units.input).into(),
                to_i64(usage.units.output).into(),
                to_i64(usage.units.cached).into(),
                usage.cost.nanos().into(),
                usage.price_version.0.into(),
                usage.outcome.code().into(),
                usage.estimated.into(),
                usage.created_at.micros().into(),
                i64::try_from(usage.latency.as_micros()).unwrap_or(i64::MAX).into(),
                usage.ttft.map(|ttft| i64::try_from(ttft.as_micros()).unwrap_or(i64::MAX)).into(),
            ]);
        }
        let sql = format!(
            "INSERT INTO usage_log (request_id, account_id, key_id, model, endpoint, class, batch_id, task_id, \
             input_tokens, output_tokens, cached_tokens, cost_nano, price_version, outcome, estimated, created_at, \
             latency_us, ttft_us) {} ON CONFLICT (request_id) DO UPDATE SET \
             input_tokens = {larger}(usage_log.input_tokens, excluded.input_tokens), \
             output_tokens = {larger}(usage_log.output_tokens, excluded.output_tokens), \
             cached_tokens = {larger}(usage_log.cached_tokens, excluded.cached_tokens), \
             cost_nano = {larger}(usage_log.cost_nano, excluded.cost_nano), \
             outcome = {larger}(usage_log.outcome, excluded.outcome), \
             estimated = CASE WHEN excluded.outcome = {running} THEN usage_log.estimated ELSE excluded.estimated END, \
             latency_us = {larger}(usage_log.latency_us, excluded.latency_us), \
             ttft_us = coalesce(usage_log.ttft_us, excluded.ttft_us)",
            tx.dialect.rows(run, COLUMNS),
            running = Outcome::Running.code(),
        );
        exactly(tx.run(sql, values).await?, run as u64, "usage_log")?;
    }
    Ok(())
}

/// One row per request: usage only grows, so of several in a group, in whatever order, the largest is the latest.
fn latest_usage<'a>(fresh: &[&'a Settlement]) -> Vec<(&'a Settlement, &'a UsageRecord)> {
    let mut latest: Vec<(&Settlement, &UsageRecord)> = Vec::with_capacity(fresh.len());
    let mut places: HashMap<Uuid, usize> = HashMap::with_capacity(fresh.len());
    let rank = |usage: &UsageRecord| (usage.cost, usage.outcome.code(), usage.units.total());
    for (settlement, usage) in fresh.iter().filter_map(|s| s.usage.as_ref().map(|usage| (*s, usage))) {
        let place = *places.entry(usage.request.uuid()).or_insert(latest.len());
        match latest.get_mut(place) {
            Some(known) if rank(usage) >= rank(known.1) => *known = (settlement, usage),
            Some(_) => {}
            None => latest.push((settlement, usage)),
        }
    }
    latest
}

async fn remember_answers(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    for (scope, answer) in fresh.iter().filter_map(|s| s.answer.as_ref()) {
        crate::idempotency::remember(tx, scope, answer).await?;
    }
    Ok(())
}

fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
