//! Holds: credit that is given and taken back, and what there is of it.

use batchin_db::{Rerun, WriteTx, retried};
use batchin_domain::{AccountId, Amount, Timestamp, TransferId, ledger::Movement};
use uuid::Uuid;

use crate::{
    Balances, Credit, StoreError, alerts,
    money::{
        admin_log::{LogEntry, append},
        booking::{BookError, Booking, counters, lock_account},
        history::codes_of_credit,
    },
    stored::stored_amount,
    waking::{WAITS_FOR_BALANCE, wake},
};

/// Credit given by the operator.
#[derive(Clone, Debug)]
pub struct CreditGrant {
    /// Names the movement.
    pub id: TransferId,
    /// Who gets it.
    pub account: AccountId,
    /// How much; above zero.
    pub amount: Amount,
    /// Who has it booked: an admin's email, or `command line`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The same reference is credited once.
    pub reference: Option<String>,
    /// The movement that it takes back, where it takes one back.
    pub reverses: Option<TransferId>,
    /// When.
    pub now: Timestamp,
}

/// Why a grant was not booked.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// No such account.
    #[error("there is no such account")]
    NoAccount,
    /// Grants are above zero.
    #[error("a grant must be above zero")]
    Nothing,
    /// Another grant has this reference.
    #[error("the reference belongs to another grant")]
    ReferenceTaken,
    /// The account cannot hold that much.
    #[error("the account would hold more than can be counted")]
    Overflow,
    /// The store failed.
    #[error("the grant could not be stored")]
    Store(#[source] StoreError),
}

/// Why credit was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum CorrectError {
    /// No such account.
    #[error("there is no such account")]
    NoAccount,
    /// Corrections are above zero.
    #[error("a correction must be above zero")]
    Nothing,
    /// The account has less that is neither spent nor leased to nodes.
    #[error("the account has less than that")]
    Insufficient {
        /// What can be taken back.
        available: Amount,
    },
    /// The reference or the id belongs to another movement.
    #[error("the reference belongs to another movement")]
    ReferenceTaken,
    /// There is no such grant of the account, or less of it is left than is to be taken back.
    #[error("no such grant, or less of it is left than that")]
    NotReversible,
    /// The store failed.
    #[error("the correction could not be stored")]
    Store(#[source] StoreError),
}

impl CreditGrant {
    fn booking(&self, movement: Movement) -> Booking<'_> {
        Booking {
            id: self.id,
            movement,
            amount: self.amount,
            reference: self.reference.as_deref(),
            reason: Some(&self.reason),
            actor: Some(&self.actor),
            topup: None,
            reverses: self.reverses.map(TransferId::uuid),
            now: self.now,
        }
    }

    async fn log(&self, tx: &WriteTx, action: &'static str) -> Result<(), StoreError> {
        let entry = LogEntry {
            actor: &self.actor,
            action,
            account: Some(self.account),
            subject: Some(self.id.uuid()),
            amount: Some(self.amount),
            reason: &self.reason,
            now: self.now,
        };
        append(tx, &entry).await
    }
}

/// Locks the account and says what can be leased of its balance: nothing while it is frozen. `None`: no account.
pub(crate) async fn lock_balance(tx: &WriteTx, account: AccountId) -> Result<Option<Amount>, StoreError> {
    let Some(mut locked) = lock_account(tx, account).await? else { return Ok(None) };
    // What nodes had leased has come back since, perhaps.
    locked.thaw(tx).await?;
    Ok(Some(if locked.frozen { Amount::ZERO } else { locked.counters.available() }))
}

impl Credit {
    /// Books credit from the operator: the movement's name. The same grant under the same reference again changes nothing, is no
    /// error, and has the name of the first.
    pub async fn grant_credit(&self, grant: CreditGrant) -> Result<TransferId, GrantError> {
        if grant.amount.is_zero() {
            return Err(GrantError::Nothing);
        }
        let booked = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some(mut account) = lock_account(&tx, grant.account).await? else {
                return Ok(Err(GrantError::NoAccount));
            };
            match already(&tx, &grant, Movement::Grant).await? {
                Some(Already::Same(id)) => return Ok(Ok(id)),
                Some(Already::Other) => return Ok(Err(GrantError::ReferenceTaken)),
                None => {}
            }
            match account.book(&tx, &[grant.booking(Movement::Grant)]).await {
                Ok(()) => {
                    grant.log(&tx, "credit.granted").await?;
                    alerts::credited(&tx, account.id).await?;
                    tx.commit().await.map(|()| Ok(grant.id))
                }
                Err(BookError::Overflow) => Ok(Err(GrantError::Overflow)),
                // Of another account, at the same moment.
                Err(BookError::Store(cause)) if cause.is_duplicate() => Ok(Err(GrantError::ReferenceTaken)),
                Err(BookError::Store(cause)) => Err(cause),
            }
        });
        let id = booked.await.map_err(GrantError::Store)??;
        // The credit stands. Where waking fails, who waits is asked again by and by.
        let _ = wake(&self.db, grant.account, WAITS_FOR_BALANCE, None).await;
        Ok(id)
    }

    /// Takes back credit that was given in error; never what is spent or leased to nodes. The movement's name; the same again
    /// changes nothing and has the name of the first.
    pub async fn correct_credit(&self, correction: CreditGrant) -> Result<TransferId, CorrectError> {
        if correction.amount.is_zero() {
            return Err(CorrectError::Nothing);
        }
        let booked = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some(mut account) = lock_account(&tx, correction.account).await? else {
                return Ok(Err(CorrectError::NoAccount));
            };
            match already(&tx, &correction, Movement::Correction).await? {
                Some(Already::Same(id)) => return Ok(Ok(id)),
                Some(Already::Other) => return Ok(Err(CorrectError::ReferenceTaken)),
                None => {}
            }
            let available = account.counters.available();
            if account.counters.take_back(correction.amount).is_err() {
                return Ok(Err(CorrectError::Insufficient { available }));
            }
            if !is_reversible(&tx, &correction).await? {
                return Ok(Err(CorrectError::NotReversible));
            }
            match account.book(&tx, &[correction.booking(Movement::Correction)]).await {
                Ok(()) => {
                    correction.log(&tx, "credit.taken_back").await?;
                    alerts::lowered(&tx, account.id, account.standing(), correction.now).await?;
                    tx.commit().await.map(|()| Ok(correction.id))
                }
                Err(BookError::Overflow) => Ok(Err(CorrectError::Insufficient { available })),
                // Of another account, at the same moment.
                Err(BookError::Store(cause)) if cause.is_duplicate() => Ok(Err(CorrectError::ReferenceTaken)),
                Err(BookError::Store(cause)) => Err(cause),
            }
        });
        booked.await.map_err(CorrectError::Store)?
    }
}

/// What has the id or the reference of a movement that is to be booked.
enum Already {
    /// The same: asked for twice, or booked in a commit that went unheard.
    Same(TransferId),
    /// Something else.
    Other,
}

async fn already(tx: &WriteTx, grant: &CreditGrant, movement: Movement) -> Result<Option<Already>, StoreError> {
    let sql = "SELECT id, account_id, amount, movement, reverses FROM transfer WHERE id = $1 OR reference = $2";
    let rows = tx.all(sql, [grant.id.uuid().into(), grant.reference.clone().into()]).await?;
    let row = match rows.as_slice() {
        [] => return Ok(None),
        [row] => row,
        _ => return Ok(Some(Already::Other)),
    };
    let there: (Uuid, Amount) = (row.get("account_id")?, stored_amount(row, "transfer", "amount")?);
    let reverses: Option<Uuid> = row.get("reverses")?;
    let is_same = there == (grant.account.uuid(), grant.amount)
        && row.get::<i16>("movement")? == movement.code()
        && reverses == grant.reverses.map(TransferId::uuid);
    Ok(Some(if is_same { Already::Same(TransferId::new(row.get("id")?)) } else { Already::Other }))
}

/// Whether so much is left of the grant that a correction names, if it names one.
async fn is_reversible(tx: &WriteTx, correction: &CreditGrant) -> Result<bool, StoreError> {
    let Some(reverses) = correction.reverses else { return Ok(true) };
    let sql = format!(
        "SELECT amount, (SELECT CAST(coalesce(sum(r.amount), 0) AS bigint) FROM transfer r WHERE r.account_id = $2 \
         AND r.movement IN ({}) AND r.movement = $4 AND r.reverses = $1) AS gone \
         FROM transfer WHERE id = $1 AND account_id = $2 AND movement = $3",
        codes_of_credit()
    );
    let values = [
        reverses.uuid().into(),
        correction.account.uuid().into(),
        Movement::Grant.code().into(),
        Movement::Correction.code().into(),
    ];
    let Some(row) = tx.one(&sql, values).await? else { return Ok(false) };
    let (amount, gone): (i64, i64) = (row.get("amount")?, row.get("gone")?);
    Ok(amount.saturating_sub(gone) >= correction.amount.nanos())
}

impl Balances {
    /// What of an account's balance is not leased to nodes; nothing where there is no account.
    pub async fn available(&self, account: AccountId) -> Result<Amount, StoreError> {
        let sql = "SELECT posted_debit, posted_credit, pending_debit FROM account WHERE id = $1";
        let row = self.db.one(sql, [account.uuid().into()]).await?;
        row.map_or(Ok(Amount::ZERO), |row| Ok(counters(&row)?.available()))
    }
}
