//! Holds: the hand-out of deliveries to nodes, and what became of each try.
//!
//! As with tasks, a claim raises the delivery's epoch and lasts as long as its node's lease; a result under an older
//! epoch is refused. So no try is made by two nodes at once, and a killed node's are taken over.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use batchin_db::{Dialect, Rerun, Row, Value, WriteTx, exactly, marks, retried};
use batchin_domain::{
    AccountId, NodeId, Timestamp,
    webhook::{DeliveryState, EventId, EventKind, Next, TryResult},
};
use uuid::Uuid;

use crate::{FencedError, NodeIdentity, Outbox, StoreError, fence::still, stored::stored};

/// Tries of one delivery that are remembered; replays make more than the schedule does.
const TRIES_KEPT: i64 = 50;
/// Ended deliveries that one sweep forgets at most, so that it holds the database for moments only.
const SWEPT_AT_ONCE: u32 = 500;

/// Names one server of one account; its deliveries share what it can bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId(Uuid);

/// What a node has room for.
#[derive(Clone, Debug)]
pub struct DeliveryRoom {
    /// Deliveries more, in all.
    pub total: usize,
    /// At once to one endpoint.
    pub per_endpoint: usize,
    /// At once for one account.
    pub per_account: usize,
    /// What is under way, by endpoint.
    pub endpoints: HashMap<EndpointId, usize>,
    /// What is under way, by account.
    pub accounts: HashMap<AccountId, usize>,
}

/// A delivery under a node's claim.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    /// The event, and the `webhook-id` of every try.
    pub id: EventId,
    /// The claim's epoch.
    pub epoch: i64,
    /// Whose.
    pub account: AccountId,
    /// What has happened.
    pub kind: EventKind,
    /// What it has happened to.
    pub subject: Uuid,
    /// Where to.
    pub url: String,
    /// The server that this leads to.
    pub endpoint: EndpointId,
    /// Tries before this one, since it was queued or replayed.
    pub tries: u32,
    /// When the event happened.
    pub created_at: Timestamp,
}

/// A try that has ended.
#[derive(Clone, Copy, Debug)]
pub struct FinishedTry {
    /// The delivery.
    pub id: EventId,
    /// The claim's epoch.
    pub epoch: i64,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub result: TryResult,
    /// What becomes of the delivery.
    pub next: Next,
    /// When it ended.
    pub now: Timestamp,
}

impl DeliveryRoom {
    fn full<K: Copy>(in_flight: &HashMap<K, usize>, most: usize) -> Vec<K> {
        in_flight.iter().filter(|(_, count)| **count >= most).map(|(key, _)| *key).collect()
    }

    /// Takes a place if there is one.
    fn take(&mut self, endpoint: EndpointId, account: AccountId) -> bool {
        let of_endpoint = self.endpoints.entry(endpoint).or_default();
        let of_account = self.accounts.entry(account).or_default();
        if self.total == 0 || *of_endpoint >= self.per_endpoint || *of_account >= self.per_account {
            return false;
        }
        self.total -= 1;
        *of_endpoint += 1;
        *of_account += 1;
        true
    }
}

impl Outbox {
    /// Claims deliveries that are due, oldest first, as far as there is room for them.
    ///
    /// After an error, deliveries may be claimed that the caller knows nothing of; they are taken back with its epoch.
    pub async fn claim_deliveries(
        &self,
        node: NodeIdentity,
        room: DeliveryRoom,
        now: Timestamp,
    ) -> Result<Vec<ClaimedDelivery>, FencedError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let mut room = room.clone();
            // Most looks find nothing; they take no write lock.
            let (sql, values) = due(&room, now, 1);
            if room.total == 0 || self.db.all(sql, values).await?.is_empty() {
                return Ok(Some(Vec::new()));
            }
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return Ok(None);
            }
            let ids = choose(&tx, &mut room, now).await?;
            let claimed = take(&tx, node, &ids).await?;
            tx.commit().await?;
            Ok(Some(claimed))
        });
        match run.await {
            Ok(Some(claimed)) => Ok(claimed),
            Ok(None) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Writes down a try and what follows from it. False when the claim is out of date: the try counts for nothing.
    pub async fn finish_try(&self, ended: FinishedTry) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some(row) = end_try(&tx, &ended).await? else { return Ok(false) };
            let (account, url): (Uuid, String) = (row.get("account_id")?, row.get("url")?);
            remember_try(&tx, &ended, row.get("attempts")?).await?;
            match ended.next {
                Next::Delivered => {
                    let forget = "DELETE FROM webhook_off WHERE account_id = $1 AND url = $2";
                    tx.run(forget, [account.into(), url.into()]).await?;
                }
                Next::Off => switch_off(&tx, account, &url, ended.now).await?,
                Next::RetryAt(_) | Next::Failed => {}
            }
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Returns what counts as this node's and is not in `known` to the queue: claims that it lost sight of.
    pub async fn release_deliveries(&self, node: NodeIdentity, known: &[EventId]) -> Result<u64, StoreError> {
        let mut values: Vec<Value> = vec![node.id.uuid().into()];
        let mut strays = format!("node_id = $1 AND state = {}", DeliveryState::Sending.code());
        if !known.is_empty() {
            strays.push_str(&format!(" AND id NOT IN ({})", marks(known.len(), 2)));
            values.extend(known.iter().map(|id| Value::from(id.uuid())));
        }
        // There hardly ever are any; looking takes no write lock.
        let look = format!("SELECT id FROM webhook_delivery WHERE {strays} LIMIT 1");
        if self.db.one(look, values.clone()).await?.is_none() {
            return Ok(0);
        }
        let sql = format!(
            "UPDATE webhook_delivery SET state = {}, node_id = NULL, epoch = epoch + 1 WHERE {strays}",
            DeliveryState::Pending.code()
        );
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return Ok(0);
            }
            let released = tx.run(sql.as_str(), values.clone()).await?;
            tx.commit().await?;
            Ok(released)
        })
        .await
    }

    /// Forgets deliveries that ended before a time, some at once; returns how many.
    pub async fn sweep_deliveries(&self, before: Timestamp) -> Result<u64, StoreError> {
        let old = "SELECT id FROM webhook_delivery WHERE finished_at IS NOT NULL AND finished_at < $1 \
                   ORDER BY finished_at LIMIT $2";
        let rows = self.db.all(old, [before.micros().into(), i64::from(SWEPT_AT_ONCE).into()]).await?;
        let ids = rows.iter().map(|row| row.get("id")).collect::<Result<Vec<Uuid>, _>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let mut swept = 0;
            for id in &ids {
                // Again, in case it was replayed just now.
                let delivery = "DELETE FROM webhook_delivery WHERE id = $1 AND finished_at < $2";
                let gone = tx.run(delivery, [(*id).into(), before.micros().into()]).await?;
                if gone == 1 {
                    tx.run("DELETE FROM webhook_attempt WHERE delivery_id = $1", [(*id).into()]).await?;
                }
                swept += gone;
            }
            tx.commit().await?;
            Ok(swept)
        })
        .await
    }
}

/// Returns what a node was sending to the queue.
pub(crate) async fn take_back(tx: &WriteTx, node: NodeId) -> Result<u64, StoreError> {
    // Written out, since a partial index is not used for a parameter.
    let sending = format!("node_id = $1 AND state = {}", DeliveryState::Sending.code());
    if tx.dialect == Dialect::Postgres {
        // Every transaction locks rows in one order.
        let lock =
            format!("SELECT count(*) FROM (SELECT 1 FROM webhook_delivery WHERE {sending} ORDER BY id FOR UPDATE) q");
        tx.run(lock, [node.uuid().into()]).await?;
    }
    tx.run(
        format!("UPDATE webhook_delivery SET state = $2, node_id = NULL, epoch = epoch + 1 WHERE {sending}"),
        [node.uuid().into(), DeliveryState::Pending.code().into()],
    )
    .await
}

/// What is due beside what has no room, oldest first.
fn due(room: &DeliveryRoom, now: Timestamp, limit: usize) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![now.micros().into(), i64::try_from(limit).unwrap_or(i64::MAX).into()];
    let mut sql = format!(
        "SELECT id, endpoint, account_id FROM webhook_delivery WHERE state = {} AND due_at <= $1",
        DeliveryState::Pending.code()
    );
    let full = [
        ("endpoint", DeliveryRoom::full(&room.endpoints, room.per_endpoint).iter().map(|one| one.0).collect()),
        ("account_id", DeliveryRoom::full(&room.accounts, room.per_account).iter().map(|one| one.uuid()).collect()),
    ];
    for (column, full) in full {
        let full: Vec<Uuid> = full;
        if !full.is_empty() {
            sql.push_str(&format!(" AND {column} NOT IN ({})", marks(full.len(), values.len() + 1)));
            values.extend(full.into_iter().map(Value::from));
        }
    }
    sql.push_str(" ORDER BY due_at, id LIMIT $2");
    (sql, values)
}

/// Picks what is due and has room; locks it.
async fn choose(tx: &WriteTx, room: &mut DeliveryRoom, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    while room.total > 0 {
        // What was picked stays in the way of the next look, which must see past it.
        let (sql, values) = due(room, now, ids.len() + room.total);
        let rows = tx.all(format!("{sql}{}", tx.dialect.skip_locked()), values).await?;
        let mut is_new = false;
        for row in rows {
            let id: Uuid = row.get("id")?;
            if seen.contains(&id) {
                continue;
            }
            let endpoint = EndpointId(row.get("endpoint")?);
            if room.take(endpoint, AccountId::new(row.get("account_id")?)) {
                seen.insert(id);
                ids.push(id);
                is_new = true;
            }
        }
        if !is_new {
            break;
        }
    }
    Ok(ids)
}

async fn take(tx: &WriteTx, node: NodeIdentity, ids: &[Uuid]) -> Result<Vec<ClaimedDelivery>, StoreError> {
    let mut claimed = Vec::with_capacity(ids.len());
    for id in ids {
        let row = tx
            .one(
                "UPDATE webhook_delivery SET state = $2, node_id = $3, epoch = epoch + 1 WHERE id = $1 \
                 RETURNING id, epoch, account_id, kind, subject, url, endpoint, tries, created_at",
                [(*id).into(), DeliveryState::Sending.code().into(), node.id.uuid().into()],
            )
            .await?;
        let row = row.ok_or(StoreError::RowCount { table: "webhook_delivery", expected: 1, touched: 0 })?;
        claimed.push(claimed_delivery(&row)?);
    }
    Ok(claimed)
}

fn claimed_delivery(row: &Row) -> Result<ClaimedDelivery, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "webhook_delivery", column };
    Ok(ClaimedDelivery {
        id: EventId::new(row.get("id")?),
        epoch: row.get("epoch")?,
        account: AccountId::new(row.get("account_id")?),
        kind: stored(row, "webhook_delivery", "kind")?,
        subject: row.get("subject")?,
        url: row.get("url")?,
        endpoint: EndpointId(row.get("endpoint")?),
        tries: u32::try_from(row.get::<i64>("tries")?).map_err(|_| corrupt("tries"))?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}

/// Ends the claim if it is in force.
async fn end_try(tx: &WriteTx, ended: &FinishedTry) -> Result<Option<Row>, StoreError> {
    let (state, due_at) = match ended.next {
        Next::Delivered => (DeliveryState::Delivered, None),
        Next::Off => (DeliveryState::Off, None),
        Next::Failed => (DeliveryState::Failed, None),
        Next::RetryAt(at) => (DeliveryState::Pending, Some(at.micros())),
    };
    let finished_at = due_at.is_none().then_some(ended.now.micros());
    tx.one(
        "UPDATE webhook_delivery SET state = $3, node_id = NULL, attempts = attempts + 1, tries = tries + 1, \
         due_at = coalesce($4, due_at), finished_at = $5 WHERE id = $1 AND epoch = $2 AND state = $6 \
         RETURNING account_id, url, attempts",
        [
            ended.id.uuid().into(),
            ended.epoch.into(),
            state.code().into(),
            due_at.into(),
            finished_at.into(),
            DeliveryState::Sending.code().into(),
        ],
    )
    .await
}

async fn remember_try(tx: &WriteTx, ended: &FinishedTry, number: i64) -> Result<(), StoreError> {
    let inserted = tx
        .run(
            "INSERT INTO webhook_attempt (delivery_id, number, at, took_us, status, failure) VALUES ($1,$2,$3,$4,$5,$6)",
            [
                ended.id.uuid().into(),
                number.into(),
                ended.at.micros().into(),
                i64::try_from(ended.took.as_micros()).unwrap_or(i64::MAX).into(),
                ended.result.status.map(i32::from).into(),
                ended.result.failure.map(batchin_domain::webhook::FailureKind::code).into(),
            ],
        )
        .await?;
    exactly(inserted, 1, "webhook_attempt")?;
    if number > TRIES_KEPT {
        let old = "DELETE FROM webhook_attempt WHERE delivery_id = $1 AND number <= $2";
        tx.run(old, [ended.id.uuid().into(), (number - TRIES_KEPT).into()]).await?;
    }
    Ok(())
}

/// Nothing more is sent to this URL of the account, and what waits for it does not wait any more.
async fn switch_off(tx: &WriteTx, account: Uuid, url: &str, now: Timestamp) -> Result<(), StoreError> {
    tx.run(
        "INSERT INTO webhook_off (account_id, url, since) VALUES ($1,$2,$3) ON CONFLICT (account_id, url) DO NOTHING",
        [account.into(), url.into(), now.micros().into()],
    )
    .await?;
    let waiting = format!(
        "SELECT id FROM webhook_delivery WHERE state = {} AND account_id = $1 AND url = $2 ORDER BY id{}",
        DeliveryState::Pending.code(),
        tx.dialect.skip_locked()
    );
    tx.run(
        format!("UPDATE webhook_delivery SET state = $3, finished_at = $4 WHERE id IN ({waiting})"),
        [account.into(), url.into(), DeliveryState::Off.code().into(), now.micros().into()],
    )
    .await?;
    Ok(())
}
