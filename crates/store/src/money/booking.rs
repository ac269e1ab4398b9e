//! Holds: movements of credit, written to an account that is locked.

use batchin_db::{Row, WriteTx, exactly};
use batchin_domain::{
    AccountId, Amount, Balance, PurseKind, Timestamp, TransferId,
    ledger::{Counters, LedgerError, Movement},
};
use uuid::Uuid;

use crate::StoreError;

/// An account under lock.
pub(crate) struct LockedAccount {
    pub(crate) id: AccountId,
    pub(crate) counters: Counters,
    /// Nothing is leased of it.
    pub(crate) frozen: bool,
    last_seq: i64,
}

/// A movement of credit to be written.
#[derive(Clone, Copy)]
pub(crate) struct Booking<'a> {
    pub(crate) id: TransferId,
    pub(crate) movement: Movement,
    pub(crate) amount: Amount,
    /// The same reference is booked once.
    pub(crate) reference: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    /// Who had it booked, where somebody had.
    pub(crate) actor: Option<&'a str>,
    /// The payment that it belongs to.
    pub(crate) topup: Option<Uuid>,
    /// The movement that it takes back.
    pub(crate) reverses: Option<Uuid>,
    pub(crate) now: Timestamp,
}

/// Why a movement of credit is not written.
#[derive(Debug)]
pub(crate) enum BookError {
    /// The account cannot count that much.
    Overflow,
    Store(StoreError),
}

impl From<LedgerError> for BookError {
    fn from(_: LedgerError) -> Self {
        Self::Overflow
    }
}

impl From<StoreError> for BookError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

/// Locks an account; `None` where there is none.
pub(crate) async fn lock_account(tx: &WriteTx, account: AccountId) -> Result<Option<LockedAccount>, StoreError> {
    let sql = format!(
        "SELECT posted_debit, posted_credit, pending_debit, frozen, last_seq FROM account WHERE id = $1{}",
        tx.dialect.for_update()
    );
    let row = tx.one(sql, [account.uuid().into()]).await?;
    let locked = |row: Row| {
        Ok(LockedAccount {
            id: account,
            counters: counters(&row)?,
            frozen: row.get("frozen")?,
            last_seq: row.get("last_seq")?,
        })
    };
    row.map(locked).transpose()
}

pub(crate) fn counters(row: &Row) -> Result<Counters, StoreError> {
    Ok(Counters {
        posted_debit: row.get("posted_debit")?,
        posted_credit: row.get("posted_credit")?,
        pending_debit: row.get("pending_debit")?,
    })
}

impl LockedAccount {
    /// Writes movements of credit. One that takes more than there is freezes the account, and has nodes give back what they
    /// have leased of it; as soon as it has enough again it is free.
    pub(crate) async fn book(&mut self, tx: &WriteTx, bookings: &[Booking<'_>]) -> Result<(), BookError> {
        let mut after = self.counters;
        for booking in bookings {
            after = after.moved(booking.movement, booking.amount)?;
        }
        let frozen = !after.is_sound();
        let last_seq = self.last_seq.saturating_add(i64::try_from(bookings.len()).unwrap_or(i64::MAX));
        let sql = "UPDATE account SET posted_credit = $2, last_seq = $3, frozen = $4 WHERE id = $1";
        let values = [self.id.uuid().into(), after.posted_credit.into(), last_seq.into(), frozen.into()];
        exactly(tx.run(sql, values).await?, 1, "account")?;
        for (booking, seq) in bookings.iter().zip(self.last_seq.saturating_add(1)..) {
            insert(tx, self.id, booking, seq).await?;
        }
        if frozen {
            let sql = "UPDATE lease SET recall = $3 WHERE kind = $1 AND owner = $2 AND outstanding > 0";
            tx.run(sql, [PurseKind::Balance.code().into(), self.id.uuid().into(), true.into()]).await?;
        }
        (self.counters, self.frozen, self.last_seq) = (after, frozen, last_seq);
        Ok(())
    }

    /// What it has, and the place of its last movement.
    pub(crate) const fn standing(&self) -> (Balance, i64) {
        (self.counters.balance(), self.last_seq)
    }

    /// Lets a frozen account go once it has enough for what is charged and leased.
    pub(crate) async fn thaw(&mut self, tx: &WriteTx) -> Result<(), StoreError> {
        if self.frozen && self.counters.is_sound() {
            let sql = "UPDATE account SET frozen = $2 WHERE id = $1";
            exactly(tx.run(sql, [self.id.uuid().into(), false.into()]).await?, 1, "account")?;
            self.frozen = false;
        }
        Ok(())
    }
}

async fn insert(tx: &WriteTx, account: AccountId, booking: &Booking<'_>, seq: i64) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "INSERT INTO transfer (id, account_id, seq, movement, amount, reference, reason, actor, topup_id, reverses, \
             created_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)",
            [
                booking.id.uuid().into(),
                account.uuid().into(),
                seq.into(),
                booking.movement.code().into(),
                booking.amount.nanos().into(),
                booking.reference.map(str::to_owned).into(),
                booking.reason.map(str::to_owned).into(),
                booking.actor.map(str::to_owned).into(),
                booking.topup.into(),
                booking.reverses.into(),
                booking.now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "transfer")
}
