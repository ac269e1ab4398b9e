//! Holds: what an account sees of its deliveries, and sending one again.

use std::time::Duration;

use batchin_db::{Rerun, Row, Value, marks, retried};
use batchin_domain::{
    AccountId, Timestamp,
    webhook::{DeliveryState, EventId, EventKind, FailureKind},
};
use uuid::Uuid;

use crate::{
    DeliveryLog, StoreError,
    stored::{stored, stored_if},
};

/// A delivery as its account sees it.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    /// The event.
    pub id: EventId,
    /// What has happened.
    pub kind: EventKind,
    /// What it has happened to.
    pub subject: Uuid,
    /// Where to; may hold secrets of the receiver's.
    pub url: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Its latest tries, oldest first.
    pub tries: Vec<TryRow>,
    /// When it is tried next, if it is.
    pub next_try_at: Option<Timestamp>,
    /// When the event happened.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub finished_at: Option<Timestamp>,
}

/// A try as the account sees it.
#[derive(Clone, Copy, Debug)]
pub struct TryRow {
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// The receiver's status.
    pub status: Option<u16>,
    /// What went wrong beside it.
    pub failure: Option<FailureKind>,
}

/// Which deliveries are asked for.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryFilter {
    /// Whose.
    pub account: AccountId,
    /// Those that stand there.
    pub state: Option<DeliveryState>,
    /// Those that follow this one in the list.
    pub after: Option<EventId>,
    /// How many, at most.
    pub limit: u32,
}

/// Why a question about deliveries has no answer.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No such delivery in this account.
    #[error("there is no such delivery")]
    NotFound,
    /// The store failed.
    #[error("the delivery could not be read or stored")]
    Store(#[source] StoreError),
}

impl From<StoreError> for DeliveryError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

const COLUMNS: &str = "id, kind, subject, url, state, due_at, created_at, finished_at";

impl DeliveryLog {
    /// An account's deliveries, newest first.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, DeliveryError> {
        let mut sql = format!("SELECT {COLUMNS} FROM webhook_delivery WHERE account_id = $1");
        let mut values: Vec<Value> = vec![filter.account.uuid().into(), i64::from(filter.limit).into()];
        if let Some(after) = filter.after {
            let last = self.delivery(filter.account, after).await?;
            sql.push_str(" AND (created_at, id) < ($3, $4)");
            values.extend([last.created_at.micros().into(), after.uuid().into()]);
        }
        if let Some(state) = filter.state {
            // To its owner, what is being tried is pending too.
            let also = if state == DeliveryState::Pending { DeliveryState::Sending } else { state };
            sql.push_str(&format!(" AND state IN ({}, {})", state.code(), also.code()));
        }
        sql.push_str(" ORDER BY created_at DESC, id DESC LIMIT $2");
        let rows = self.db.all(sql, values).await?;
        let mut deliveries = rows.iter().map(delivery_row).collect::<Result<Vec<_>, _>>()?;
        self.add_tries(&mut deliveries).await?;
        Ok(deliveries)
    }

    /// One of an account's deliveries.
    pub async fn delivery(&self, account: AccountId, id: EventId) -> Result<DeliveryRow, DeliveryError> {
        let sql = format!("SELECT {COLUMNS} FROM webhook_delivery WHERE account_id = $1 AND id = $2");
        let row = self.db.one(sql, [account.uuid().into(), id.uuid().into()]).await?.ok_or(DeliveryError::NotFound)?;
        let mut delivery = [delivery_row(&row)?];
        self.add_tries(&mut delivery).await?;
        let [delivery] = delivery;
        Ok(delivery)
    }

    /// Sends a delivery again from the first try on, also to a URL that was switched off; one that is being tried at
    /// this moment goes on as it is, and so does a code, which may go to somebody who never asked for it.
    pub async fn replay_delivery(
        &self,
        account: AccountId,
        id: EventId,
        now: Timestamp,
    ) -> Result<DeliveryRow, DeliveryError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "UPDATE webhook_delivery SET state = $3, tries = 0, due_at = $4, finished_at = NULL \
                 WHERE account_id = $1 AND id = $2 AND state <> $5 AND kind <> $6",
                [
                    account.uuid().into(),
                    id.uuid().into(),
                    DeliveryState::Pending.code().into(),
                    now.micros().into(),
                    DeliveryState::Sending.code().into(),
                    EventKind::EmailCode.code().into(),
                ],
            )
            .await?;
            tx.commit().await
        })
        .await?;
        self.delivery(account, id).await
    }

    async fn add_tries(&self, deliveries: &mut [DeliveryRow]) -> Result<(), StoreError> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT delivery_id, at, took_us, status, failure FROM webhook_attempt WHERE delivery_id IN ({}) \
             ORDER BY delivery_id, number",
            marks(deliveries.len(), 1)
        );
        let ids: Vec<Value> = deliveries.iter().map(|delivery| delivery.id.uuid().into()).collect();
        for row in self.db.all(sql, ids).await? {
            let id = EventId::new(row.get("delivery_id")?);
            if let Some(delivery) = deliveries.iter_mut().find(|delivery| delivery.id == id) {
                delivery.tries.push(try_row(&row)?);
            }
        }
        Ok(())
    }
}

fn delivery_row(row: &Row) -> Result<DeliveryRow, StoreError> {
    const TABLE: &str = "webhook_delivery";
    let state = stored(row, TABLE, "state")?;
    let due_at = Timestamp::from_micros(row.get("due_at")?);
    Ok(DeliveryRow {
        id: EventId::new(row.get("id")?),
        kind: stored(row, TABLE, "kind")?,
        subject: row.get("subject")?,
        url: row.get("url")?,
        state,
        tries: Vec::new(),
        next_try_at: matches!(state, DeliveryState::Pending | DeliveryState::Sending).then_some(due_at),
        created_at: Timestamp::from_micros(row.get("created_at")?),
        finished_at: row.get::<Option<i64>>("finished_at")?.map(Timestamp::from_micros),
    })
}

fn try_row(row: &Row) -> Result<TryRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "webhook_attempt", column };
    let status: Option<i32> = row.get("status")?;
    Ok(TryRow {
        at: Timestamp::from_micros(row.get("at")?),
        took: Duration::from_micros(u64::try_from(row.get::<i64>("took_us")?).unwrap_or(0)),
        status: status.map(|status| u16::try_from(status).map_err(|_| corrupt("status"))).transpose()?,
        failure: stored_if(row, "webhook_attempt", "failure")?,
    })
}
