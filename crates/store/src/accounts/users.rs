//! Holds: users and the accounts that pay for them; an account's id is its user's.

use batchin_db::{Rerun, Row, Value, exactly, retried};
use batchin_domain::{AccountId, Balance, Timestamp};

use crate::{Accounts, StoreError, stored::stored};

batchin_domain::stored! {
    /// What a user may do.
    pub enum Role {
        /// Their own things.
        User = 0,
        /// The operator's things too.
        Admin = 1,
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
    /// Less was credited than is charged and set aside, since money went back; nothing is spent until there is enough again.
    pub frozen: bool,
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

const USER_COLUMNS: &str = "SELECT u.id, u.email, u.name, u.password_hash, u.role, u.disabled, u.created_at, \
     a.posted_credit - a.posted_debit AS balance, \
     (a.frozen AND a.posted_debit + a.pending_debit > a.posted_credit) AS frozen FROM app_user u JOIN account a ON a.id = u.id";

fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: AccountId::new(row.get("id")?),
        email: row.get("email")?,
        name: row.get("name")?,
        password_hash: row.get("password_hash")?,
        role: stored(row, "app_user", "role")?,
        disabled: row.get("disabled")?,
        balance: Balance::from_nanos(row.get("balance")?),
        frozen: row.get("frozen")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}

impl Accounts {
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
                frozen: false,
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
}
