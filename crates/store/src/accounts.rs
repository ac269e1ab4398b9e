//! Holds: users and the accounts that pay for them; an account's id is its user's.

use batchin_db::{Rerun, Row, Value, WriteTx, exactly, retried};
use batchin_domain::{AccountId, Amount, Balance, Timestamp, TransferId, ledger::Counters, ledger::Movement};

use crate::{Store, StoreError, WAITS_FOR_BALANCE, stored::stored_amount};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Their own things.
    User,
    /// The operator's things too.
    Admin,
}

impl Role {
    const fn code(self) -> i16 {
        match self {
            Self::User => 0,
            Self::Admin => 1,
        }
    }
}

/// A user to be created.
#[derive(Clone)]
pub struct NewUser {
    /// Also the account's id.
    pub id: AccountId,
    /// Lower case; unique.
    pub email: String,
    /// As they call themselves.
    pub name: String,
    /// An argon2id hash in PHC form.
    pub password_hash: String,
    /// What they may do.
    pub role: Role,
    /// When.
    pub now: Timestamp,
}

/// A user and what their account holds.
#[derive(Clone)]
pub struct User {
    /// Also the account's id.
    pub id: AccountId,
    /// Lower case.
    pub email: String,
    /// As they call themselves.
    pub name: String,
    /// An argon2id hash in PHC form.
    pub password_hash: String,
    /// What they may do.
    pub role: Role,
    /// May not log in, and their keys do not work.
    pub disabled: bool,
    /// Credited minus charged.
    pub balance: Balance,
    /// When they registered.
    pub created_at: Timestamp,
}

/// Why a user was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateUserError {
    /// Somebody has registered with this email.
    #[error("the email is registered already")]
    EmailTaken,
    /// The store failed.
    #[error("the user could not be stored")]
    Store(#[source] StoreError),
}

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

const USER_COLUMNS: &str = "SELECT u.id, u.email, u.name, u.password_hash, u.role, u.disabled, u.created_at, \
     a.posted_credit - a.posted_debit AS balance FROM app_user u JOIN account a ON a.id = u.id";

fn user(row: &Row) -> Result<User, StoreError> {
    let role = match row.get::<i16>("role")? {
        0 => Role::User,
        1 => Role::Admin,
        _ => return Err(StoreError::Corrupt { table: "app_user", column: "role" }),
    };
    Ok(User {
        id: AccountId::new(row.get("id")?),
        email: row.get("email")?,
        name: row.get("name")?,
        password_hash: row.get("password_hash")?,
        role,
        disabled: row.get("disabled")?,
        balance: Balance::from_nanos(row.get("balance")?),
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
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

impl Store {
    /// Creates a user and an empty account.
    pub async fn create_user(&self, new: NewUser) -> Result<User, CreateUserError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let values: [Value; 6] = [
                new.id.uuid().into(),
                new.email.clone().into(),
                new.name.clone().into(),
                new.password_hash.clone().into(),
                new.role.code().into(),
                new.now.micros().into(),
            ];
            tx.run("INSERT INTO account (id) VALUES ($1)", [new.id.uuid().into()]).await?;
            tx.run(
                "INSERT INTO app_user (id, email, name, password_hash, role, created_at) VALUES ($1,$2,$3,$4,$5,$6)",
                values,
            )
            .await?;
            tx.commit().await
        });
        match run.await {
            Ok(()) => Ok(User {
                id: new.id,
                email: new.email,
                name: new.name,
                password_hash: new.password_hash,
                role: new.role,
                disabled: false,
                balance: Balance::ZERO,
                created_at: new.now,
            }),
            Err(cause) if cause.is_duplicate() => Err(CreateUserError::EmailTaken),
            Err(cause) => Err(CreateUserError::Store(cause)),
        }
    }

    /// The user with this lower-case email.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        let row = self.db.one(format!("{USER_COLUMNS} WHERE u.email = $1"), [email.into()]).await?;
        row.as_ref().map(user).transpose()
    }

    /// The user with this id.
    pub async fn user(&self, id: AccountId) -> Result<Option<User>, StoreError> {
        let row = self.db.one(format!("{USER_COLUMNS} WHERE u.id = $1"), [id.uuid().into()]).await?;
        row.as_ref().map(user).transpose()
    }

    /// All users, oldest first, at most `limit`.
    pub async fn users(&self, limit: u32) -> Result<Vec<User>, StoreError> {
        let sql = format!("{USER_COLUMNS} ORDER BY u.created_at, u.id LIMIT $1");
        self.db.all(sql, [i64::from(limit).into()]).await?.iter().map(user).collect()
    }

    /// Changes name, password hash or both. A new password ends every session.
    pub async fn update_user(
        &self,
        id: AccountId,
        name: Option<String>,
        password_hash: Option<String>,
    ) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
        let tx = self.db.write().await?;
        if password_hash.is_some() {
            tx.run("DELETE FROM session WHERE user_id = $1", [id.uuid().into()]).await?;
        }
        let touched = tx
            .run(
                "UPDATE app_user SET name = coalesce($2, name), password_hash = coalesce($3, password_hash) WHERE id = $1",
                [id.uuid().into(), name.clone().into(), password_hash.clone().into()],
            )
            .await?;
        exactly(touched, 1, "app_user")?;
        tx.commit().await
        })
        .await
    }

    /// Lets a user in or keeps them out; sessions stop at once, keys within the time that they are cached for.
    pub async fn set_user_disabled(&self, id: AccountId, disabled: bool) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "UPDATE app_user SET disabled = $2 WHERE id = $1";
            exactly(tx.run(sql, [id.uuid().into(), disabled.into()]).await?, 1, "app_user")?;
            tx.commit().await
        })
        .await
    }

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
        let _ = self.wake_waiting(grant.account, WAITS_FOR_BALANCE, None).await;
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

    /// What of an account's balance is not leased to nodes; nothing where there is no account.
    pub async fn available(&self, account: AccountId) -> Result<Amount, StoreError> {
        let sql = "SELECT posted_debit, posted_credit, pending_debit FROM account WHERE id = $1";
        let row = self.db.one(sql, [account.uuid().into()]).await?;
        row.map_or(Ok(Amount::ZERO), |row| Ok(counters(&row)?.available()))
    }

    /// Whether the movement with this grant's id or reference gave the same account as much.
    async fn is_booked(&self, grant: &CreditGrant) -> Result<bool, StoreError> {
        let sql = "SELECT account_id, amount FROM transfer WHERE id = $1 OR reference = $2";
        let rows = self.db.all(sql, [grant.id.uuid().into(), grant.reference.clone().into()]).await?;
        let [row] = rows.as_slice() else { return Ok(false) };
        let account = AccountId::new(row.get("account_id")?);
        Ok((account, stored_amount(row, "transfer", "amount")?) == (grant.account, grant.amount))
    }

    /// Credits of an account, newest first.
    pub async fn credits(&self, account: AccountId, limit: u32) -> Result<Vec<Credited>, StoreError> {
        // Written out, as only so the index of credits, few among many charges, is found.
        let sql = format!(
            "SELECT id, movement, amount, reference, created_at FROM transfer WHERE account_id = $1 \
             AND movement IN ({}, {}) ORDER BY seq DESC LIMIT $2",
            movement_code(Movement::Grant),
            movement_code(Movement::Correction)
        );
        let rows = self.db.all(sql, [account.uuid().into(), i64::from(limit).into()]).await?;
        let credited = |row: &Row| {
            let amount = stored_amount(row, "transfer", "amount")?.nanos();
            let is_correction = row.get::<i16>("movement")? == movement_code(Movement::Correction);
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
            movement_code(movement).into(),
            grant.amount.nanos().into(),
            grant.reference.clone().into(),
            grant.reason.clone().into(),
            grant.now.micros().into(),
        ],
    )
    .await?;
    Ok(())
}

pub(crate) const fn movement_code(movement: Movement) -> i16 {
    match movement {
        Movement::Grant => 0,
        Movement::Charge => 1,
        Movement::Late => 2,
        Movement::Correction => 3,
        Movement::GiveBack => 4,
    }
}
