//! Holds: one group of settlements as one transaction.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use batchin_db::{Db, Dialect, Row, Source, Target, Value, WriteTx, both, columns_of, exactly};
use batchin_domain::{AccountId, Amount, Balance, Measure, Purse, PurseKind, TaskStatus, ledger::Movement};
use futures::join;
use uuid::Uuid;

use crate::{
    CommitError, NodeIdentity, Outcome, Settlement, StoreError, UsageRecord, alerts,
    commit::{Before, tasks::Ends},
    fence::still,
    stored::{made_columns, made_values, to_i64},
};

/// Writes a group.
pub(super) async fn group(
    db: &Db,
    node: NodeIdentity,
    settlements: &Arc<[Box<Settlement>]>,
    before: Before,
) -> Result<Vec<Result<(), CommitError>>, StoreError> {
    let settlements = Arc::clone(settlements);
    db.write_whole(move |tx| group_in(tx, node, settlements, before)).await
}

async fn group_in(
    tx: WriteTx,
    node: NodeIdentity,
    settlements: Arc<[Box<Settlement>]>,
    before: Before,
) -> Result<Vec<Result<(), CommitError>>, StoreError> {
    let settlements = &*settlements;
    if !still(&tx, node).await? {
        return Ok(vec![Err(CommitError::Fenced); settlements.len()]);
    }
    let known = match before {
        Before::Nothing => HashSet::new(),
        Before::Perhaps => known_charges(&tx, settlements).await?,
    };
    let mut current = current_claims(&tx, settlements).await?;
    let mut films = HashSet::new();
    let mut results = Vec::with_capacity(settlements.len());
    let mut fresh = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        if known.contains(&settlement.charge_id.uuid()) {
            results.push(Ok(()));
        // A claim ends once, in this group too.
        } else if settlement.task.as_ref().is_some_and(|t| !current.remove(&(t.task.uuid(), t.epoch))) {
            results.push(Err(CommitError::StaleTask));
        } else if let Some(film) = &settlement.film
            && !(films.insert(film.video) && crate::films::is_current(&tx, film).await?)
        {
            results.push(Err(CommitError::StaleTask));
        } else {
            results.push(Ok(()));
            fresh.push(&**settlement);
        }
    }
    if fresh.is_empty() {
        return Ok(results);
    }
    let (ends, charges) = (Ends::lock(&tx, &fresh).await?, Charges::of(&fresh));
    let (ended, posted) = join!(ends.write(&tx), post_to_accounts(&tx, &charges.accounts));
    let ((), (next_seq, watched)) = both(ended, posted)?;
    end_films(&tx, &fresh).await?;
    let balances = charges.balances();
    // Their order does not matter: whoever changes a lease has its purse or its account locked, and purses go in order.
    let (leases, purses, transfers, usage, answers) = join!(
        post_to_leases(&tx, node, PurseKind::Balance, &balances),
        post_to_all_purses(&tx, node, &charges),
        insert_transfers(&tx, &charges.charged, next_seq),
        write_usage(&tx, &fresh, before),
        remember_answers(&tx, &fresh),
    );
    both(both(leases, purses), both(transfers, both(usage, answers)))?;
    tell_watched(&tx, &watched, (&charges, &fresh)).await?;
    batchin_faults::point("commit.written");
    tx.commit().await?;
    Ok(results)
}

/// Which of these settlements are in the ledger already.
async fn known_charges(tx: &WriteTx, settlements: &[Box<Settlement>]) -> Result<HashSet<Uuid>, StoreError> {
    let mut known = HashSet::new();
    for settlement in settlements {
        let id = settlement.charge_id.uuid();
        if let Some(film) = &settlement.film {
            // A film may cost nothing; that its job has ended under this claim tells.
            if crate::films::is_finished(tx, film).await? {
                known.insert(id);
            }
            continue;
        }
        let written = match &settlement.task {
            // Without a charge the task tells: a claim's epoch stays on it when that claim ends it.
            Some(task) if settlement.charge.is_zero() && settlement.given_back.is_zero() => tx.one(
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
async fn current_claims(tx: &WriteTx, settlements: &[Box<Settlement>]) -> Result<HashSet<(Uuid, i64)>, StoreError> {
    let ids: BTreeSet<Uuid> = settlements.iter().filter_map(|s| s.task.as_ref()).map(|t| t.task.uuid()).collect();
    let ids = ids.into_iter().map(Value::from).collect();
    let lock = tx.dialect.for_update();
    let sql = |these: &str| format!("SELECT id, epoch FROM task WHERE state = $1 AND id {these} ORDER BY id{lock}");
    let rows = tx.all_of(ids, vec![TaskStatus::Running.code().into()], sql).await?;
    rows.iter().map(|row| Ok((row.get("id")?, row.get("epoch")?))).collect()
}

/// Ends the jobs of films whose charges are in this group.
async fn end_films(tx: &WriteTx, fresh: &[&Settlement]) -> Result<(), StoreError> {
    for settlement in fresh {
        if let Some(film) = &settlement.film {
            let cost = settlement.usage.as_ref().map_or(Amount::ZERO, |usage| usage.cost);
            crate::films::finish(tx, film, cost, settlement.now).await?;
        }
    }
    Ok(())
}

/// What a group charges and gives back.
struct Charges<'a> {
    charged: Vec<&'a Settlement>,
    /// In order, and each once.
    accounts: Vec<(AccountId, Posted)>,
    /// What is spent of each purse, and what of that was held.
    purses: BTreeMap<Purse, (i64, i64)>,
}

impl<'a> Charges<'a> {
    fn of(fresh: &[&'a Settlement]) -> Self {
        let moving = |s: &&Settlement| !(s.charge.is_zero() && s.given_back.is_zero());
        let charged: Vec<&Settlement> = fresh.iter().copied().filter(moving).collect();
        let mut accounts: BTreeMap<AccountId, Posted> = BTreeMap::new();
        let mut purses: BTreeMap<Purse, (i64, i64)> = BTreeMap::new();
        for settlement in &charged {
            let (nanos, back) = (settlement.charge.nanos(), settlement.given_back.nanos());
            let sum = accounts.entry(settlement.account).or_default();
            sum.charged = sum.charged.saturating_add(nanos);
            sum.given_back = sum.given_back.saturating_add(back);
            sum.transfers += 1;
            let budget = settlement.key.map(|key| (Purse::Budget(key, settlement.month), settlement.budget_held));
            let cap =
                settlement.task.as_ref().filter(|_| settlement.cap_held).map(|task| (Purse::Cap(task.batch), true));
            for (purse, held) in budget.into_iter().chain(cap) {
                let sums = purses.entry(purse).or_default();
                sums.0 = sums.0.saturating_add(nanos).saturating_sub(back);
                sums.1 = sums.1.saturating_add(if held { nanos } else { 0 });
            }
        }
        Self { charged, accounts: accounts.into_iter().collect(), purses }
    }

    /// What is taken from what is leased of balances.
    fn balances(&self) -> Vec<(Purse, i64)> {
        let leased = self.accounts.iter().filter(|(_, posted)| posted.charged > 0);
        leased.map(|(account, posted)| (Purse::Balance(*account), posted.charged)).collect()
    }
}

/// What a group moves on one account.
#[derive(Clone, Copy, Default)]
struct Posted {
    charged: i64,
    given_back: i64,
    /// Charges and givings back, each of which has a place in the account's sequence.
    transfers: i64,
}

/// Posts each account's sum; returns the sequence number that each account's first new charge gets, and the accounts whose
/// owners may have to be told of something.
async fn post_to_accounts(
    tx: &WriteTx,
    sums: &[(AccountId, Posted)],
) -> Result<(HashMap<AccountId, i64>, Vec<Watched>), StoreError> {
    let (mut last_seq, mut told) = (HashMap::with_capacity(sums.len()), Vec::new());
    let values = |(account, posted): &(AccountId, Posted)| -> [Value; 4] {
        [account.uuid().into(), posted.charged.into(), posted.transfers.into(), posted.given_back.into()]
    };
    match tx.dialect {
        _ if sums.is_empty() => {}
        // What updates many rows at once, or returns them, goes through a temporary table there.
        Dialect::Sqlite => {
            for one in sums {
                let sql = "UPDATE account SET posted_debit = posted_debit + $2, pending_debit = pending_debit - $2, \
                           last_seq = last_seq + $3, posted_credit = posted_credit + $4 WHERE id = $1";
                exactly(tx.run(sql, values(one)).await?, 1, "account")?;
                let row = tx.one(format!("SELECT {POSTED} FROM account WHERE id = $1"), [one.0.uuid().into()]).await?;
                let row = row.ok_or(StoreError::RowCount { table: "account", expected: 1, touched: 0 })?;
                last_seq.insert(one.0, row.get("last_seq")?);
                told.extend(watched(&row, one.0)?);
            }
        }
        Dialect::Postgres => {
            if sums.len() > 1 {
                // An UPDATE of many rows locks them in no order.
                let ids = sums.iter().map(|(account, _)| account.uuid().into()).collect();
                let sql = |these: &str| format!("SELECT 1 FROM account WHERE id {these} ORDER BY id FOR UPDATE");
                tx.all_of(ids, Vec::new(), sql).await?;
            }
            let (source, values) = columns_of(sums.iter().flat_map(values).collect(), 4);
            let sql = format!(
                "WITH v(owner, amount, transfers, back) AS ({}) UPDATE account SET \
                 posted_debit = posted_debit + v.amount, posted_credit = posted_credit + v.back, \
                 pending_debit = pending_debit - v.amount, last_seq = last_seq + v.transfers FROM v \
                 WHERE account.id = v.owner RETURNING id, {POSTED}",
                source.rows(4)
            );
            let rows = tx.all(sql, values).await?;
            exactly(rows.len() as u64, sums.len() as u64, "account")?;
            for row in rows {
                let account = AccountId::new(row.get("id")?);
                last_seq.insert(account, row.get("last_seq")?);
                told.extend(watched(&row, account)?);
            }
        }
    }
    for (account, posted) in sums {
        last_seq.entry(*account).and_modify(|seq| *seq = *seq - posted.transfers + 1);
    }
    Ok((last_seq, told))
}

/// What is read of an account that was posted to.
const POSTED: &str = "last_seq, posted_credit - posted_debit AS balance, alert_at, budget_alert";

/// An account whose owner may have to be told of something.
struct Watched {
    account: AccountId,
    /// What it has and the place of its last movement, where that is less than its owner wants to be told of.
    low: Option<(Balance, i64)>,
    /// The part of a key's budget that they want to be told of, in percent.
    budget_alert: Option<i16>,
}

fn watched(row: &Row, account: AccountId) -> Result<Option<Watched>, StoreError> {
    let (balance, alert_at): (i64, Option<i64>) = (row.get("balance")?, row.get("alert_at")?);
    let budget_alert: Option<i16> = row.get("budget_alert")?;
    let is_low = alert_at.is_some_and(|alert_at| balance < alert_at);
    let low = if is_low { Some((Balance::from_nanos(balance), row.get("last_seq")?)) } else { None };
    Ok((low.is_some() || budget_alert.is_some()).then_some(Watched { account, low, budget_alert }))
}

/// Tells owners of balances that are low now, and of budgets of which enough is spent.
async fn tell_watched(
    tx: &WriteTx,
    watched: &[Watched],
    (charges, fresh): (&Charges<'_>, &[&Settlement]),
) -> Result<(), StoreError> {
    for Watched { account, low, budget_alert } in watched {
        let of_account = || fresh.iter().filter(|settlement| settlement.account == *account);
        let Some(now) = of_account().map(|settlement| settlement.now).next() else { continue };
        if let Some(low) = low {
            alerts::lowered(tx, *account, *low, now).await?;
        }
        let Some(percent) = budget_alert else { continue };
        let months: BTreeSet<_> = of_account().filter_map(|one| one.key.map(|key| (key, one.month))).collect();
        for (key, month) in months {
            let posted = charges.purses.get(&Purse::Budget(key, month)).map_or(0, |(spent, _)| *spent);
            if posted > 0 {
                alerts::spent(tx, (*account, *percent), (key, month, posted), now).await?;
            }
        }
    }
    Ok(())
}

async fn post_to_all_purses(tx: &WriteTx, node: NodeIdentity, charges: &Charges<'_>) -> Result<(), StoreError> {
    for kind in [PurseKind::Budget, PurseKind::Cap] {
        let purses = charges.purses.iter().filter(|(purse, _)| purse.kind() == kind);
        let purses: Vec<_> = purses.map(|(purse, sums)| (*purse, *sums)).collect();
        if !purses.is_empty() {
            post_to_purses(tx, node, kind, &purses).await?;
        }
    }
    Ok(())
}

/// Counts charges for their keys' months and their batches, and takes what was held there from what is leased.
async fn post_to_purses(
    tx: &WriteTx,
    node: NodeIdentity,
    kind: PurseKind,
    purses: &[(Purse, (i64, i64))],
) -> Result<(), StoreError> {
    let code = kind.code();
    let (held, free): (Vec<_>, Vec<_>) = purses.iter().partition(|(_, (_, held))| *held > 0);
    // What a new row would have is checked also where there is one, and nothing has spent less than nothing: what is
    // given back was spent there before.
    let (growing, shrinking): (Vec<_>, Vec<_>) = free.into_iter().partition(|(_, (spent, _))| *spent >= 0);
    for (purse, (spent, _)) in shrinking {
        let sql = "UPDATE purse SET spent = spent + $4 WHERE kind = $1 AND owner = $2 AND win = $3";
        let values: [Value; 4] = [code.into(), purse.owner().into(), purse.window().into(), spent.into()];
        exactly(tx.run(sql, values).await?, 1, "purse")?;
    }
    let values = growing.iter().flat_map(|(purse, (spent, _))| -> [Value; 4] {
        [code.into(), purse.owner().into(), purse.window().into(), (*spent).into()]
    });
    let sql = |source: &Source| {
        format!(
            "INSERT INTO purse (kind, owner, win, spent) {} ON CONFLICT (kind, owner, win) \
             DO UPDATE SET spent = purse.spent + excluded.spent",
            source.rows(4)
        )
    };
    exactly(tx.run_over(values.collect(), 4, sql).await?, growing.len() as u64, "purse")?;
    // What is leased of a purse has a row.
    let sql = |source: &Source| match source {
        Source::One => format!(
            "UPDATE purse SET spent = spent + $3, leased = leased - $4 WHERE kind = {code} AND owner = $1 AND win = $2"
        ),
        Source::Many(rows) => format!(
            "WITH v(owner, win, amount, held) AS ({rows}) UPDATE purse SET spent = spent + v.amount, \
             leased = leased - v.held FROM v WHERE purse.kind = {code} AND purse.owner = v.owner AND purse.win = v.win"
        ),
    };
    let values = held.iter().flat_map(|(purse, (spent, held))| -> [Value; 4] {
        [purse.owner().into(), purse.window().into(), (*spent).into(), (*held).into()]
    });
    exactly(tx.run_over(values.collect(), 4, sql).await?, held.len() as u64, "purse")?;
    let held: Vec<_> = held.into_iter().map(|(purse, (_, held))| (purse, held)).collect();
    post_to_leases(tx, node, kind, &held).await
}

/// Takes what was charged from what the node has leased. Whoever changes a lease has its purse locked, so the order in
/// which these rows are locked does not matter.
async fn post_to_leases(
    tx: &WriteTx,
    node: NodeIdentity,
    kind: PurseKind,
    charged: &[(Purse, i64)],
) -> Result<(), StoreError> {
    let code = kind.code();
    let sql = |source: &Source| match source {
        Source::One => format!(
            "UPDATE lease SET outstanding = outstanding - $3 \
             WHERE kind = {code} AND owner = $1 AND win = $2 AND node_id = $4"
        ),
        Source::Many(rows) => format!(
            "WITH v(owner, win, amount, node) AS ({rows}) UPDATE lease SET outstanding = outstanding - v.amount FROM v \
             WHERE lease.kind = {code} AND lease.owner = v.owner AND lease.win = v.win AND lease.node_id = v.node"
        ),
    };
    let values = charged.iter().flat_map(|(purse, amount)| -> [Value; 4] {
        [purse.owner().into(), purse.window().into(), (*amount).into(), node.id.uuid().into()]
    });
    exactly(tx.run_over(values.collect(), 4, sql).await?, charged.len() as u64, "lease")
}

const TRANSFER: Target = Target {
    table: "transfer",
    columns: &["id", "account_id", "seq", "movement", "amount", "request_id", "price_version", "created_at"],
};

async fn insert_transfers(
    tx: &WriteTx,
    charged: &[&Settlement],
    mut next_seq: HashMap<AccountId, i64>,
) -> Result<(), StoreError> {
    let mut values: Vec<Value> = Vec::with_capacity(charged.len() * TRANSFER.columns.len());
    for settlement in charged {
        let seq = next_seq.get_mut(&settlement.account);
        let seq = seq.ok_or(StoreError::RowCount { table: "account", expected: 1, touched: 0 })?;
        let (movement, amount) = if settlement.given_back.is_zero() {
            (Movement::Charge, settlement.charge)
        } else {
            (Movement::GiveBack, settlement.given_back)
        };
        values.extend([
            settlement.charge_id.uuid().into(),
            settlement.account.uuid().into(),
            (*seq).into(),
            movement.code().into(),
            amount.nanos().into(),
            settlement.usage.as_ref().map(|u| u.request.uuid()).into(),
            settlement.usage.as_ref().map(|u| u.price_version.0).into(),
            settlement.now.micros().into(),
        ]);
        *seq += 1;
    }
    tx.insert(TRANSFER, values).await
}

const USAGE: Target = Target {
    table: "usage_log",
    columns: &[
        "request_id",
        "account_id",
        "key_id",
        "model",
        "endpoint",
        "class",
        "batch_id",
        "task_id",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cost_nano",
        "price_version",
        "outcome",
        "estimated",
        "created_at",
        "latency_us",
        "ttft_us",
        "marks",
    ],
};

async fn write_usage(tx: &WriteTx, fresh: &[&Settlement], before: Before) -> Result<(), StoreError> {
    let (mut new, mut again) = (Vec::with_capacity(fresh.len() * USAGE.columns.len()), Vec::new());
    for (settlement, usage) in latest_usage(fresh) {
        let is_new = before == Before::Nothing && settlement.is_first();
        if usage.counts.has_made() {
            write_made(tx, settlement, usage, is_new).await?;
            continue;
        }
        let rows = if is_new { &mut new } else { &mut again };
        rows.extend(usage_values(settlement, usage));
    }
    let columns = USAGE.columns.len();
    let many = (again.len() / columns) as u64;
    let sql = |source: &Source| {
        let (insert, set) = (USAGE.insert(source), overwritten(false));
        format!("{insert} ON CONFLICT (account_id, created_at, request_id) DO UPDATE SET {set}")
    };
    let (added, written) = join!(tx.insert(USAGE, new), tx.run_over(again, columns, sql));
    both(added, written.and_then(|touched| exactly(touched, many, USAGE.table))).map(drop)
}

/// A row that counts more than tokens, for which the statement of the others has no columns: few requests have any, and
/// each of the others would pay for them.
async fn write_made(
    tx: &WriteTx,
    settlement: &Settlement,
    usage: &UsageRecord,
    is_new: bool,
) -> Result<(), StoreError> {
    let columns: Vec<&str> = USAGE.columns.iter().copied().chain(made_columns()).collect();
    let places: Vec<_> = (1..=columns.len()).map(|place| format!("${place}")).collect();
    let mut sql = format!("INSERT INTO {} ({}) VALUES ({})", USAGE.table, columns.join(", "), places.join(", "));
    if !is_new {
        let set = overwritten(true);
        sql.push_str(&format!(" ON CONFLICT (account_id, created_at, request_id) DO UPDATE SET {set}"));
    }
    let values: Vec<Value> = usage_values(settlement, usage).into_iter().chain(made_values(usage.counts)).collect();
    exactly(tx.run(sql, values).await?, 1, USAGE.table)
}

/// A flush is written over by the next, and by what the request came to in the end; that stays, whatever follows.
fn overwritten(has_made: bool) -> String {
    const GROWING: [&str; 10] = [
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cost_nano",
        "outcome",
        "estimated",
        "latency_us",
        "ttft_us",
        "marks",
    ];
    let running = Outcome::Running.code();
    let late = format!("excluded.outcome = {running} AND usage_log.outcome <> {running}");
    let names = GROWING.into_iter().chain(made_columns().filter(|_| has_made));
    let set = names.map(|name| format!("{name} = CASE WHEN {late} THEN usage_log.{name} ELSE excluded.{name} END"));
    set.collect::<Vec<_>>().join(", ")
}

/// The values of [`USAGE`]'s columns.
fn usage_values(settlement: &Settlement, usage: &UsageRecord) -> [Value; USAGE.columns.len()] {
    [
        usage.request.uuid().into(),
        settlement.account.uuid().into(),
        settlement.key.map(batchin_domain::KeyId::uuid).into(),
        usage.model.as_str().into(),
        usage.call.code().into(),
        i16::try_from(usage.class.index()).unwrap_or(i16::MAX).into(),
        usage.task.map(|(batch, _)| batch.uuid()).into(),
        usage.task.map(|(_, task)| task.uuid()).into(),
        to_i64(usage.counts.of(Measure::PromptTokens)).into(),
        to_i64(usage.counts.of(Measure::CompletionTokens)).into(),
        to_i64(usage.counts.of(Measure::CachedTokens)).into(),
        to_i64(usage.counts.of(Measure::CacheWriteTokens)).into(),
        usage.cost.nanos().into(),
        usage.price_version.0.into(),
        usage.outcome.code().into(),
        usage.estimated.into(),
        usage.created_at.micros().into(),
        i64::try_from(usage.latency.as_micros()).unwrap_or(i64::MAX).into(),
        usage.ttft.map(|ttft| i64::try_from(ttft.as_micros()).unwrap_or(i64::MAX)).into(),
        usage.marks.code().into(),
    ]
}

/// One row per request: of several in a group, in whatever order, the end is the latest, and of flushes the largest.
fn latest_usage<'a>(fresh: &[&'a Settlement]) -> Vec<(&'a Settlement, &'a UsageRecord)> {
    let mut latest: Vec<(&Settlement, &UsageRecord)> = Vec::with_capacity(fresh.len());
    let mut places: HashMap<Uuid, usize> = HashMap::with_capacity(fresh.len());
    let rank = |usage: &UsageRecord| (usage.outcome != Outcome::Running, usage.cost, usage.counts.tokens());
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
        crate::inference::idempotency::remember(tx, scope, answer).await?;
    }
    Ok(())
}
