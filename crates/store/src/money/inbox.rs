//! Holds: what Stripe has reported, from when it is stored until it is dealt with.

use batchin_db::{Db, Rerun, Row, exactly, retried};
use batchin_domain::Timestamp;

use crate::{StoreError, stored::unsigned};

const EVENT: &str = "stripe_event";
/// Reports that one sweep forgets at most, so that it holds the database for moments only.
const SWEPT_AT_ONCE: u32 = 500;

/// Reports of Stripe. Held by who takes them and deals with them.
#[derive(Clone)]
pub struct Inbox {
    pub(crate) db: Db,
}

/// A report to be stored.
#[derive(Clone, Debug)]
pub struct NewStripeEvent {
    /// Stripe's name for it; stored once.
    pub id: String,
    /// Stripe's word for what has happened.
    pub kind: String,
    /// As it came.
    pub body: String,
    /// Whether it names anything that is to be read anew; one that does not is only kept.
    pub is_due: bool,
}

/// A report that is to be dealt with.
#[derive(Clone, Debug)]
pub struct DueStripeEvent {
    /// Stripe's name for it.
    pub id: String,
    /// As it came.
    pub body: String,
    /// How often that failed.
    pub tries: u64,
}

impl Inbox {
    /// Stores reports, each once, all or none.
    pub async fn keep_events(&self, events: &[NewStripeEvent], now: Timestamp) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            for event in events {
                tx.run(
                    "INSERT INTO stripe_event (id, kind, body, received_at, due_at) VALUES ($1,$2,$3,$4,$5) \
                     ON CONFLICT (id) DO NOTHING",
                    [
                        event.id.as_str().into(),
                        event.kind.as_str().into(),
                        event.body.as_str().into(),
                        now.micros().into(),
                        event.is_due.then_some(now.micros()).into(),
                    ],
                )
                .await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Reports that are to be dealt with, at most `limit`. Whoever takes them has until `again` for it; then they are
    /// anybody's.
    pub async fn due_events(
        &self,
        now: Timestamp,
        again: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueStripeEvent>, StoreError> {
        let due = "SELECT id, body, tries FROM stripe_event WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2";
        let rows = self.db.all(due, [now.micros().into(), i64::from(limit).into()]).await?;
        let events = rows.iter().map(due_event).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Ok(events);
        }
        let taken = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let mut taken = Vec::with_capacity(events.len());
            for event in &events {
                let sql = "UPDATE stripe_event SET due_at = $3, tries = tries + 1 WHERE id = $1 AND due_at <= $2";
                let values = [event.id.as_str().into(), now.micros().into(), again.micros().into()];
                if tx.run(sql, values).await? == 1 {
                    taken.push(event.clone());
                }
            }
            tx.commit().await.map(|()| taken)
        });
        taken.await
    }

    /// A report is dealt with; `outcome` says how, for operators.
    pub async fn event_done(&self, id: &str, outcome: &str) -> Result<(), StoreError> {
        self.put_event(id, None, outcome).await
    }

    /// A report could not be dealt with now; `cause` says why, for operators.
    pub async fn event_again(&self, id: &str, due_at: Timestamp, cause: &str) -> Result<(), StoreError> {
        self.put_event(id, Some(due_at), cause).await
    }

    async fn put_event(&self, id: &str, due_at: Option<Timestamp>, outcome: &str) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "UPDATE stripe_event SET due_at = $2, outcome = $3 WHERE id = $1";
            let values = [id.into(), due_at.map(Timestamp::micros).into(), outcome.into()];
            exactly(tx.run(sql, values).await?, 1, EVENT)?;
            tx.commit().await
        })
        .await
    }

    /// How many reports wait, and since when the oldest does.
    pub async fn waiting_events(&self) -> Result<(u64, Option<Timestamp>), StoreError> {
        let sql = "SELECT count(*) AS n, min(received_at) AS oldest FROM stripe_event WHERE due_at IS NOT NULL";
        let Some(row) = self.db.one(sql, []).await? else { return Ok((0, None)) };
        Ok((unsigned(&row, EVENT, "n")?, row.get::<Option<i64>>("oldest")?.map(Timestamp::from_micros)))
    }

    /// Forgets reports that were dealt with and came before a time; `true`: there may be more.
    pub async fn sweep_events(&self, before: Timestamp) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "DELETE FROM stripe_event WHERE id IN (SELECT id FROM stripe_event WHERE due_at IS NULL \
                       AND received_at < $1 ORDER BY received_at LIMIT $2)";
            let swept = tx.run(sql, [before.micros().into(), i64::from(SWEPT_AT_ONCE).into()]).await?;
            tx.commit().await.map(|()| swept == u64::from(SWEPT_AT_ONCE))
        })
        .await
    }

    /// Takes a turn of something that one node does at a time, every now and then: `Some` with where the last turn came to,
    /// if it is due. Others have it from `again` on, should this turn come to nothing.
    pub async fn take_turn(&self, name: &str, now: Timestamp, again: Timestamp) -> Result<Option<i64>, StoreError> {
        let asleep = self
            .db
            .one("SELECT 1 AS n FROM money_cursor WHERE name = $1 AND due_at > $2", [name.into(), now.micros().into()]);
        if asleep.await?.is_some() {
            return Ok(None);
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let touched = tx
                .run(
                    "INSERT INTO money_cursor (name, value, due_at) VALUES ($1, 0, $3) ON CONFLICT (name) DO UPDATE \
                     SET due_at = excluded.due_at WHERE money_cursor.due_at <= $2",
                    [name.into(), now.micros().into(), again.micros().into()],
                )
                .await?;
            let row = tx.one("SELECT value FROM money_cursor WHERE name = $1", [name.into()]).await?;
            tx.commit().await?;
            let row = row.filter(|_| touched == 1);
            row.map(|row| row.get("value")).transpose()
        })
        .await
    }

    /// Takes something that one node does at a time, or goes on holding it, until a time: whether it is this holder's. Holders
    /// have names of their own, above zero.
    pub async fn hold_turn(
        &self,
        (name, holder): (&str, i64),
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT value, due_at FROM money_cursor WHERE name = $1";
        if let Some(row) = self.db.one(sql, [name.into()]).await? {
            let (held_by, held_until): (i64, i64) = (row.get("value")?, row.get("due_at")?);
            if held_by != holder && held_until > now.micros() {
                return Ok(false);
            }
            // Half of it is left: nothing need be written.
            let left = Timestamp::from_micros(held_until).since(now);
            if held_by == holder && left > until.since(now) / 2 {
                return Ok(true);
            }
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let touched = tx
                .run(
                    "INSERT INTO money_cursor (name, value, due_at) VALUES ($1, $3, $4) ON CONFLICT (name) DO UPDATE \
                     SET value = excluded.value, due_at = excluded.due_at \
                     WHERE money_cursor.due_at <= $2 OR money_cursor.value = excluded.value",
                    [name.into(), now.micros().into(), holder.into(), until.micros().into()],
                )
                .await?;
            tx.commit().await.map(|()| touched == 1)
        })
        .await
    }

    /// A turn has come as far as this, and the next is due then.
    pub async fn end_turn(&self, name: &str, value: i64, due_at: Timestamp) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "UPDATE money_cursor SET value = $2, due_at = $3 WHERE name = $1";
            exactly(tx.run(sql, [name.into(), value.into(), due_at.micros().into()]).await?, 1, "money_cursor")?;
            tx.commit().await
        })
        .await
    }
}

fn due_event(row: &Row) -> Result<DueStripeEvent, StoreError> {
    Ok(DueStripeEvent { id: row.get("id")?, body: row.get("body")?, tries: unsigned(row, EVENT, "tries")? })
}
