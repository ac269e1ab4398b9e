//! Holds: payments, from when they are asked for to whatever became of their money.
//!
//! A payment's state outside is read as a whole, and what follows from it for the ledger is written as a whole: movements
//! that are not there yet, each under a reference of its own. So it does not matter how often, in what order and by whom it
//! is read. A reading that began before another one was written is refused by the payment's version.

use std::{collections::HashMap, time::Duration};

use batchin_db::{Rerun, Row, Value, WriteTx, exactly, retried};
use batchin_domain::{
    AccountId, Amount, Timestamp, TopupId, TopupSource, TopupStatus, TransferId, ledger::Movement, webhook::EventKind,
};
use uuid::Uuid;

use crate::{
    StoreError, Topups, alerts,
    money::{
        auto,
        booking::{BookError, Booking, LockedAccount, lock_account},
    },
    stored::{stored, stored_amount, unsigned},
    waking::{WAITS_FOR_BALANCE, wake},
};

const TOPUP: &str = "topup";
/// Payments that an account can have open at once: each is a page at Stripe.
const MAX_OPEN: i64 = 50;
/// One of which it is not known whether its page was opened counts for so long: while Stripe is ill, none is.
const UNKNOWN_COUNTS: Duration = Duration::from_secs(3_600);

/// A payment to be asked for.
#[derive(Clone, Debug)]
pub struct NewTopup {
    /// Names it, also at Stripe.
    pub id: TopupId,
    /// Who pays.
    pub account: AccountId,
    /// How it comes.
    pub source: TopupSource,
    /// How much; above zero.
    pub amount: Amount,
    /// When it is looked at, should nothing be heard of it.
    pub due_at: Timestamp,
    /// When.
    pub now: Timestamp,
}

/// Why a payment cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum OpenTopupError {
    /// No such account.
    #[error("there is no such account")]
    NoAccount,
    /// The account has so many that are not paid.
    #[error("the account has {most} payments that are not paid")]
    TooMany {
        /// Most at once.
        most: u64,
    },
    /// The store failed.
    #[error("the payment could not be stored")]
    Store(#[from] StoreError),
}

/// What is known of a payment from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopupDetails {
    /// Stripe's session.
    pub session: Option<String>,
    /// Where it is paid.
    pub url: Option<String>,
    /// Stripe's payment intent.
    pub payment: Option<String>,
    /// Why it failed: a word.
    pub failure: Option<String>,
    /// Stripe's receipt.
    pub receipt_url: Option<String>,
    /// Stripe's invoice.
    pub invoice_url: Option<String>,
    /// The invoice's number.
    pub invoice: Option<String>,
    /// Name, address and tax ids as Stripe collected them, in JSON.
    pub buyer: Option<String>,
}

/// A payment as it stands.
#[derive(Clone, Debug)]
pub struct TopupRow {
    /// Names it.
    pub id: TopupId,
    /// Who pays.
    pub account: AccountId,
    /// How it comes.
    pub source: TopupSource,
    /// Where it stands.
    pub status: TopupStatus,
    /// What was asked for.
    pub amount: Amount,
    /// What is known of it from outside.
    pub details: TopupDetails,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was credited.
    pub completed_at: Option<Timestamp>,
    /// Grows with every reading that is written.
    pub version: i64,
    /// How often it was looked at without anything new.
    pub checks: u64,
    /// Of a payment that is made by itself, whose card pays: Stripe's customer.
    pub customer: Option<String>,
    /// And their saved payment method.
    pub method: Option<String>,
}

/// A movement that a payment's state outside calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names the movement, if it is not there yet.
    pub id: TransferId,
    /// What it is known by outside; booked once.
    pub reference: String,
    /// What it is.
    pub movement: Movement,
    /// How much; above zero.
    pub amount: Amount,
    /// The reference of what it takes back.
    pub reverses: Option<String>,
    /// Why, in a word of whoever says so.
    pub reason: Option<String>,
}

/// What a payment's state outside comes to.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Which payment.
    pub topup: TopupId,
    /// Its version when the reading began.
    pub version: i64,
    /// Where it stands now.
    pub status: TopupStatus,
    /// Every movement that it called for so far, what is reversed before what reverses it.
    pub entries: Vec<Entry>,
    /// What is known of it; what is `None` here stays as it is.
    pub details: TopupDetails,
    /// When it is looked at again, should nothing be heard of it; `None`: never.
    pub due_at: Option<Timestamp>,
    /// When.
    pub now: Timestamp,
}

/// What a reading changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Movements that were not there before.
    pub fresh: usize,
    /// The account has less than is charged and set aside, and spends nothing until it has enough again.
    pub frozen: bool,
}

/// Why a reading was not written.
#[derive(Debug, thiserror::Error)]
pub enum SettleTopupError {
    /// Another one was written since it began, or there is no such payment.
    #[error("the payment was read anew in the meantime")]
    Stale,
    /// The ledger knows one of its references as something else.
    #[error("{reference} is in the ledger already, as another movement")]
    Conflict {
        /// Which.
        reference: String,
    },
    /// The account cannot count that much.
    #[error("the account would hold more than can be counted")]
    Overflow,
    /// The store failed.
    #[error("the payment could not be stored")]
    Store(#[from] StoreError),
}

impl From<BookError> for SettleTopupError {
    fn from(cause: BookError) -> Self {
        match cause {
            BookError::Overflow => Self::Overflow,
            BookError::Store(cause) => Self::Store(cause),
        }
    }
}

/// What a payment is looked for by.
#[derive(Clone, Copy, Debug)]
pub enum TopupKey<'a> {
    /// Our own name for it.
    Id(TopupId),
    /// Stripe's session.
    Session(&'a str),
    /// Stripe's payment intent.
    Payment(&'a str),
}

const COLUMNS: &str = "id, account_id, source, status, amount, session, url, payment, failure, receipt_url, invoice_url, \
     invoice, buyer, created_at, completed_at, version, checks, customer, method";

impl Topups {
    /// Remembers that a payment is asked for, before anybody outside is told.
    pub async fn open_topup(&self, new: &NewTopup) -> Result<(), OpenTopupError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if lock_account(&tx, new.account).await?.is_none() {
                return Ok(Err(OpenTopupError::NoAccount));
            }
            let sql = "SELECT count(*) AS n FROM topup WHERE account_id = $1 AND id <> $2 \
                       AND (status = $3 OR (status = $4 AND created_at > $5))";
            let values = [
                new.account.uuid().into(),
                new.id.uuid().into(),
                TopupStatus::Pending.code().into(),
                TopupStatus::Created.code().into(),
                new.now.before(UNKNOWN_COUNTS).micros().into(),
            ];
            let open = tx.one(sql, values).await?;
            if open.map_or(Ok(0), |row| row.get::<i64>("n"))? >= MAX_OPEN {
                return Ok(Err(OpenTopupError::TooMany { most: MAX_OPEN.unsigned_abs() }));
            }
            tx.run(
                "INSERT INTO topup (id, account_id, source, status, amount, created_at, due_at) \
                 VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (id) DO NOTHING",
                [
                    new.id.uuid().into(),
                    new.account.uuid().into(),
                    new.source.code().into(),
                    TopupStatus::Created.code().into(),
                    new.amount.nanos().into(),
                    new.now.micros().into(),
                    new.due_at.micros().into(),
                ],
            )
            .await?;
            tx.commit().await.map(Ok)
        });
        run.await?
    }

    /// A payment.
    pub async fn topup(&self, key: TopupKey<'_>) -> Result<Option<TopupRow>, StoreError> {
        let (column, value): (_, Value) = match key {
            TopupKey::Id(id) => ("id", id.uuid().into()),
            TopupKey::Session(session) => ("session", session.into()),
            TopupKey::Payment(payment) => ("payment", payment.into()),
        };
        let row = self.db.one(format!("SELECT {COLUMNS} FROM topup WHERE {column} = $1"), [value]).await?;
        row.as_ref().map(topup_row).transpose()
    }

    /// Payments of an account, newest first.
    pub async fn topups(&self, account: AccountId, limit: u32) -> Result<Vec<TopupRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM topup WHERE account_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2");
        let rows = self.db.all(sql, [account.uuid().into(), i64::from(limit).into()]).await?;
        rows.iter().map(topup_row).collect()
    }

    /// Payments that are to be looked at, at most `limit`; whoever takes them has until `again`, which is made of the number of
    /// looks so far, and then they are anybody's.
    pub async fn due_topups(
        &self,
        now: Timestamp,
        again: impl Fn(u64) -> Timestamp,
        limit: u32,
    ) -> Result<Vec<TopupRow>, StoreError> {
        // Nearly always there are none.
        let due = format!("SELECT {COLUMNS} FROM topup WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2");
        let rows = self.db.all(due, [now.micros().into(), i64::from(limit).into()]).await?;
        let mut taken = Vec::with_capacity(rows.len());
        for row in rows.iter().map(topup_row) {
            let row = row?;
            let again = again(row.checks);
            let took = retried(Rerun::Harmless, || async {
                let tx = self.db.write().await?;
                let sql = "UPDATE topup SET due_at = $3, checks = checks + 1 WHERE id = $1 AND due_at <= $2";
                let touched = tx.run(sql, [row.id.uuid().into(), now.micros().into(), again.micros().into()]).await?;
                tx.commit().await.map(|()| touched == 1)
            });
            if took.await? {
                taken.push(row);
            }
        }
        Ok(taken)
    }

    /// Writes what a payment's state outside comes to: its movements, its status, whatever its owner is told, at once.
    pub async fn settle_topup(&self, reading: &Reading) -> Result<Settled, SettleTopupError> {
        let (account, settled) = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            match settle(&tx, reading).await {
                Ok(settled) => tx.commit().await.map(|()| Ok(settled)),
                Err(SettleTopupError::Store(cause)) => Err(cause),
                Err(other) => Ok(Err(other)),
            }
        })
        .await??;
        if settled.fresh > 0 {
            // The credit stands. Where waking fails, who waits is asked again by and by.
            let _ = wake(&self.db, account, WAITS_FOR_BALANCE, None).await;
        }
        Ok(settled)
    }
}

async fn settle(tx: &WriteTx, reading: &Reading) -> Result<(AccountId, Settled), SettleTopupError> {
    let sql = format!("SELECT account_id, status, source, version FROM topup WHERE id = $1{}", tx.dialect.for_update());
    let row = tx.one(sql, [reading.topup.uuid().into()]).await?.ok_or(SettleTopupError::Stale)?;
    if row.get::<i64>("version")? != reading.version {
        return Err(SettleTopupError::Stale);
    }
    let account = AccountId::new(row.get("account_id")?);
    let before: TopupStatus = stored(&row, TOPUP, "status")?;
    let mut settled = Settled { fresh: 0, frozen: false };
    let known = known(tx, account, &reading.entries).await?;
    let fresh: Vec<&Entry> = reading.entries.iter().filter(|entry| !known.contains_key(&entry.reference)).collect();
    if !fresh.is_empty() {
        let locked = lock_account(tx, account).await?.ok_or(StoreError::RowCount {
            table: "account",
            expected: 1,
            touched: 0,
        })?;
        settled = Settled { fresh: fresh.len(), frozen: book(tx, locked, (reading, &fresh), known).await? };
    }
    write(tx, reading).await?;
    if reading.status == TopupStatus::Failed && before.is_open() {
        tell(tx, account, (EventKind::TopupFailed, reading.topup.uuid()), reading.now).await?;
        if stored::<TopupSource>(&row, TOPUP, "source")? == TopupSource::Automatic {
            // Or it would be tried again at once.
            let why = reading.details.failure.as_deref().unwrap_or("failed");
            auto::stop(tx, account, why).await?;
        }
    }
    Ok((account, settled))
}

/// Those of the movements that are there, by reference.
async fn known(tx: &WriteTx, account: AccountId, entries: &[Entry]) -> Result<HashMap<String, Uuid>, SettleTopupError> {
    let mut known = HashMap::with_capacity(entries.len());
    for entry in entries {
        let sql = "SELECT id, account_id, movement, amount FROM transfer WHERE reference = $1";
        let Some(row) = tx.one(sql, [entry.reference.as_str().into()]).await? else { continue };
        let there = (AccountId::new(row.get("account_id")?), row.get("movement")?, row.get("amount")?);
        if there != (account, entry.movement.code(), entry.amount.nanos()) {
            return Err(SettleTopupError::Conflict { reference: entry.reference.clone() });
        }
        known.insert(entry.reference.clone(), row.get("id")?);
    }
    Ok(known)
}

/// Books what is new; whether that froze the account.
async fn book(
    tx: &WriteTx,
    mut account: LockedAccount,
    (reading, fresh): (&Reading, &[&Entry]),
    mut ids: HashMap<String, Uuid>,
) -> Result<bool, SettleTopupError> {
    ids.extend(fresh.iter().map(|entry| (entry.reference.clone(), entry.id.uuid())));
    let booking = |entry: &&'_ Entry| Booking {
        id: entry.id,
        movement: entry.movement,
        amount: entry.amount,
        reference: None,
        reason: None,
        actor: None,
        topup: Some(reading.topup.uuid()),
        reverses: entry.reverses.as_ref().and_then(|reference| ids.get(reference)).copied(),
        now: reading.now,
    };
    let bookings: Vec<_> = fresh
        .iter()
        .map(|entry| Booking { reference: Some(&entry.reference), reason: entry.reason.as_deref(), ..booking(entry) })
        .collect();
    account.book(tx, &bookings).await?;
    alerts::credited(tx, account.id).await?;
    alerts::lowered(tx, account.id, account.standing(), reading.now).await?;
    if let Some(why) = fresh.iter().find_map(|entry| ends_automatic(entry.movement)) {
        // The balance is lower now, and whoever took the money back did not mean their card to pay it again.
        auto::stop(tx, account.id, why).await?;
    }
    for entry in fresh {
        let about = match entry.movement {
            Movement::Paid | Movement::Deposited => (EventKind::TopupSucceeded, reading.topup.uuid()),
            Movement::Refunded | Movement::Disputed | Movement::Orphaned => (EventKind::TopupReversed, entry.id.uuid()),
            Movement::RefundFailed
            | Movement::DisputeWon
            | Movement::Grant
            | Movement::Correction
            | Movement::Charge
            | Movement::GiveBack
            | Movement::Late => continue,
        };
        tell(tx, account.id, about, reading.now).await?;
    }
    Ok(account.frozen)
}

/// Why payments by themselves end with a movement: a word.
const fn ends_automatic(movement: Movement) -> Option<&'static str> {
    match movement {
        Movement::Refunded => Some("refunded"),
        Movement::Disputed => Some("disputed"),
        Movement::Paid
        | Movement::RefundFailed
        | Movement::DisputeWon
        | Movement::Deposited
        | Movement::Orphaned
        | Movement::Grant
        | Movement::Correction
        | Movement::Charge
        | Movement::GiveBack
        | Movement::Late => None,
    }
}

async fn tell(
    tx: &WriteTx,
    account: AccountId,
    (kind, subject): (EventKind, Uuid),
    now: Timestamp,
) -> Result<(), StoreError> {
    alerts::tell(tx, &alerts::Alert { account, kind, subject, occasion: None }, now).await
}

async fn write(tx: &WriteTx, reading: &Reading) -> Result<(), StoreError> {
    let details = &reading.details;
    let completed = reading.status == TopupStatus::Completed;
    let touched = tx
        .run(
            "UPDATE topup SET version = version + 1, status = $2, due_at = $3, session = coalesce($4, session), \
             url = coalesce($5, url), payment = coalesce($6, payment), failure = $7, \
             receipt_url = coalesce($8, receipt_url), invoice_url = coalesce($9, invoice_url), \
             invoice = coalesce($10, invoice), buyer = coalesce($11, buyer), \
             completed_at = CASE WHEN $12 THEN coalesce(completed_at, $13) ELSE completed_at END WHERE id = $1",
            [
                reading.topup.uuid().into(),
                reading.status.code().into(),
                reading.due_at.map(Timestamp::micros).into(),
                details.session.clone().into(),
                details.url.clone().into(),
                details.payment.clone().into(),
                details.failure.clone().into(),
                details.receipt_url.clone().into(),
                details.invoice_url.clone().into(),
                details.invoice.clone().into(),
                details.buyer.clone().into(),
                completed.into(),
                reading.now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, TOPUP)
}

fn topup_row(row: &Row) -> Result<TopupRow, StoreError> {
    let completed: Option<i64> = row.get("completed_at")?;
    Ok(TopupRow {
        id: TopupId::new(row.get("id")?),
        account: AccountId::new(row.get("account_id")?),
        source: stored(row, TOPUP, "source")?,
        status: stored(row, TOPUP, "status")?,
        amount: stored_amount(row, TOPUP, "amount")?,
        details: TopupDetails {
            session: row.get("session")?,
            url: row.get("url")?,
            payment: row.get("payment")?,
            failure: row.get("failure")?,
            receipt_url: row.get("receipt_url")?,
            invoice_url: row.get("invoice_url")?,
            invoice: row.get("invoice")?,
            buyer: row.get("buyer")?,
        },
        created_at: Timestamp::from_micros(row.get("created_at")?),
        completed_at: completed.map(Timestamp::from_micros),
        version: row.get("version")?,
        checks: unsigned(row, TOPUP, "checks")?,
        customer: row.get("customer")?,
        method: row.get("method")?,
    })
}
