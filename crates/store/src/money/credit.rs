//! Holds: credit that is given and taken back, and what there is of it.

use batchin_db::{Rerun, Row, WriteTx, exactly, retried};
use batchin_domain::{AccountId, Amount, Balance, Timestamp, TransferId, ledger::Counters, ledger::Movement};

use crate::{
    Balances, Credit, StoreError,
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
    /// Who gave it and why, for the history.
    pub reason: String,
    /// The same reference is credited once.
    pub reference: Option<String>,
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
    /// The store failed.
    #[error("the correction could not be stored")]
    Store(#[source] StoreError),
}

/// A credit in an account's history.
#[derive(Clone, Debug)]
pub struct Credited {
    /// Names the movement.
    pub id: TransferId,
    /// How much; below zero when it was taken back.
    pub amount: Balance,
    /// The outside reference, if there is one.
    pub reference: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

async fn lock_account(tx: &WriteTx, account: AccountId) -> Result<Option<(Counters, bool)>, StoreError> {
    let sql = format!(
        "SELECT posted_debit, posted_credit, pending_debit, frozen FROM account WHERE id = $1{}",
        tx.dialect.for_update()
    );
    let row = tx.one(sql, [account.uuid().into()]).await?;
    row.map(|row| Ok((counters(&row)?, row.get("frozen")?))).transpose()
}

fn counters(row: &Row) -> Result<Counters, StoreError> {
    Ok(Counters {
        posted_debit: row.get("posted_debit")?,
        posted_credit: row.get("posted_credit")?,
        pending_debit: row.get("pending_debit")?,
    })
}

/// Locks the account and says what can be leased of its balance: nothing while it is frozen. `None`: no account.
pub(crate) async fn lock_balance(tx: &WriteTx, account: AccountId) -> Result<Option<Amount>, StoreError> {
    let locked = lock_account(tx, account).await?;
    Ok(locked.map(|(counters, frozen)| if frozen { Amount::ZERO } else { counters.available() }))
}

impl Credit {
    /// Books credit from the operator. The same grant under the same reference again changes nothing and is no error.
    pub async fn grant_credit(&self, grant: CreditGrant) -> Result<(), GrantError> {
        if grant.amount.is_zero() {
            return Err(GrantError::Nothing);
        }
        let booked = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some((counters, _)) = lock_account(&tx, grant.account).await? else {
                return Ok(Err(GrantError::NoAccount));
            };
            let Ok(after) = counters.credit(grant.amount) else { return Ok(Err(GrantError::Overflow)) };
            match book_credit(&tx, &grant, after, Movement::Grant).await {
                Ok(()) => tx.commit().await.map(Ok),
                Err(cause) if cause.is_duplicate() => {
                    drop(tx);
                    // The same once more, or this very grant in a commit that went unheard.
                    let same = self.is_booked(&grant).await?;
                    Ok(if same { Ok(()) } else { Err(GrantError::ReferenceTaken) })
                }
                Err(cause) => Err(cause),
            }
        });
        booked.await.map_err(GrantError::Store)??;
        // The credit stands. Where waking fails, who waits is asked again by and by.
        let _ = wake(&self.db, grant.account, WAITS_FOR_BALANCE, None).await;
        Ok(())
    }

    /// Takes back credit that was given in error; never what is spent or leased to nodes. The same again changes nothing.
    pub async fn correct_credit(&self, correction: CreditGrant) -> Result<(), CorrectError> {
        if correction.amount.is_zero() {
            return Err(CorrectError::Nothing);
        }
        let booked = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some((counters, _)) = lock_account(&tx, correction.account).await? else {
                return Ok(Err(CorrectError::NoAccount));
            };
            let Ok(after) = counters.take_back(correction.amount) else {
                drop(tx);
                // This very correction may be booked, in a commit that went unheard.
                let insufficient = CorrectError::Insufficient { available: counters.available() };
                return Ok(if self.is_booked(&correction).await? { Ok(()) } else { Err(insufficient) });
            };
            match book_credit(&tx, &correction, after, Movement::Correction).await {
                Ok(()) => tx.commit().await.map(Ok),
                Err(cause) if cause.is_duplicate() => {
                    drop(tx);
                    let same = self.is_booked(&correction).await?;
                    Ok(if same { Ok(()) } else { Err(CorrectError::ReferenceTaken) })
                }
                Err(cause) => Err(cause),
            }
        });
        booked.await.map_err(CorrectError::Store)?
    }

    /// Whether the movement with this grant's id or reference gave the same account as much.
    async fn is_booked(&self, grant: &CreditGrant) -> Result<bool, StoreError> {
        let sql = "SELECT account_id, amount FROM transfer WHERE id = $1 OR reference = $2";
        let rows = self.db.all(sql, [grant.id.uuid().into(), grant.reference.clone().into()]).await?;
        let [row] = rows.as_slice() else { return Ok(false) };
        let account = AccountId::new(row.get("account_id")?);
        Ok((account, stored_amount(row, "transfer", "amount")?) == (grant.account, grant.amount))
    }
}

impl Balances {
    /// What of an account's balance is not leased to nodes; nothing where there is no account.
    pub async fn available(&self, account: AccountId) -> Result<Amount, StoreError> {
        let sql = "SELECT posted_debit, posted_credit, pending_debit FROM account WHERE id = $1";
        let row = self.db.one(sql, [account.uuid().into()]).await?;
        row.map_or(Ok(Amount::ZERO), |row| Ok(counters(&row)?.available()))
    }

    /// Credits of an account, newest first.
    pub async fn credits(&self, account: AccountId, limit: u32) -> Result<Vec<Credited>, StoreError> {
        // Written out, as only so the index of credits, few among many charges, is found.
        let sql = format!(
            "SELECT id, movement, amount, reference, created_at FROM transfer WHERE account_id = $1 \
             AND movement IN ({}, {}) ORDER BY seq DESC LIMIT $2",
            Movement::Grant.code(),
            Movement::Correction.code()
        );
        let rows = self.db.all(sql, [account.uuid().into(), i64::from(limit).into()]).await?;
        let credited = |row: &Row| {
            let amount = stored_amount(row, "transfer", "amount")?.nanos();
            let is_correction = row.get::<i16>("movement")? == Movement::Correction.code();
            Ok(Credited {
                id: TransferId::new(row.get("id")?),
                amount: Balance::from_nanos(if is_correction { amount.saturating_neg() } else { amount }),
                reference: row.get("reference")?,
                created_at: Timestamp::from_micros(row.get("created_at")?),
            })
        };
        rows.iter().map(credited).collect()
    }
}

async fn book_credit(tx: &WriteTx, grant: &CreditGrant, after: Counters, movement: Movement) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "UPDATE account SET posted_credit = $2, last_seq = last_seq + 1 WHERE id = $1",
            [grant.account.uuid().into(), after.posted_credit.into()],
        )
        .await?;
    exactly(touched, 1, "account")?;
    tx.run(
        "INSERT INTO transfer (id, account_id, seq, movement, amount, reference, reason, created_at) \
         SELECT $1, id, last_seq, $3, $4, $5, $6, $7 FROM account WHERE id = $2",
        [
            grant.id.uuid().into(),
            grant.account.uuid().into(),
            movement.code().into(),
            grant.amount.nanos().into(),
            grant.reference.clone().into(),
            grant.reason.clone().into(),
            grant.now.micros().into(),
        ],
    )
    .await?;
    Ok(())
}
