//! Holds: API keys, known by the hash of their secret.

use batchin_db::{Rerun, Row, Value, exactly, retried};
use batchin_domain::{AccountId, Amount, KeyId, Month, PurseKind, Timestamp};

use crate::{
    Accounts, Keys, Role, StoreError,
    stored::{stored, stored_amount},
    waking::{WAITS_FOR_BUDGET, wake},
};

/// A key to be created.
#[derive(Clone)]
pub struct NewKey {
    /// Names it.
    pub id: KeyId,
    /// Whose account pays.
    pub account: AccountId,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The secret's last four characters, to tell keys apart.
    pub last4: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Requests in a calendar minute.
    pub rate_limit_rpm: u32,
    /// What may be spent in a calendar month; `None` is no limit.
    pub monthly_budget: Option<Amount>,
    /// When.
    pub now: Timestamp,
}

/// What a request needs to know of the key that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Names it.
    pub id: KeyId,
    /// Whose account pays.
    pub account: AccountId,
    /// Requests in a calendar minute.
    pub rate_limit_rpm: u32,
    /// What may be spent in a calendar month.
    pub monthly_budget: Option<Amount>,
    /// The owner is an operator.
    pub admin: bool,
}

/// A key as its owner sees it.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// Names it.
    pub id: KeyId,
    /// What its owner calls it.
    pub name: Option<String>,
    /// The secret's last four characters.
    pub last4: String,
    /// Requests in a calendar minute.
    pub rate_limit_rpm: u32,
    /// What may be spent in a calendar month.
    pub monthly_budget: Option<Amount>,
    /// What was charged in this calendar month.
    pub spent_this_month: Amount,
    /// Whether it works.
    pub is_active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// What to change; `None` leaves as is.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// A new name, or none.
    pub name: Option<Option<String>>,
    /// A new rate limit.
    pub rate_limit_rpm: Option<u32>,
    /// A new budget, or none.
    pub monthly_budget: Option<Option<Amount>>,
    /// Whether it works.
    pub is_active: Option<bool>,
}

/// Why a key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateKeyError {
    /// No such key in this account.
    #[error("there is no such key")]
    NotFound,
    /// The store failed.
    #[error("the key could not be stored")]
    Store(#[source] StoreError),
}

fn rpm(row: &Row) -> Result<u32, StoreError> {
    let stored: i64 = row.get("rate_limit_rpm")?;
    u32::try_from(stored).map_err(|_| StoreError::Corrupt { table: "api_key", column: "rate_limit_rpm" })
}

fn budget(row: &Row) -> Result<Option<Amount>, StoreError> {
    let stored: Option<i64> = row.get("budget_nano")?;
    stored
        .map(|nanos| Amount::from_nanos(nanos).ok_or(StoreError::Corrupt { table: "api_key", column: "budget_nano" }))
        .transpose()
}

impl Accounts {
    /// Stores a key.
    pub async fn create_key(&self, new: NewKey) -> Result<(), StoreError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let values: [Value; 9] = [
                new.id.uuid().into(),
                new.account.uuid().into(),
                new.hash.to_vec().into(),
                new.last4.as_str().into(),
                new.name.clone().into(),
                i64::from(new.rate_limit_rpm).into(),
                new.monthly_budget.map(Amount::nanos).into(),
                true.into(),
                new.now.micros().into(),
            ];
            // The same key again is no error: an earlier commit may have gone unheard.
            tx.run(
                "INSERT INTO api_key (id, account_id, hash, last4, name, rate_limit_rpm, budget_nano, is_active, \
                 created_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9) ON CONFLICT (id) DO NOTHING",
                values,
            )
            .await?;
            tx.commit().await
        });
        run.await
    }

    /// An account's keys, newest first, without the deleted ones.
    pub async fn keys(&self, account: AccountId, now: Timestamp) -> Result<Vec<KeyRow>, StoreError> {
        let rows = self
            .db
            .all(
                "SELECT k.id, k.name, k.last4, k.rate_limit_rpm, k.budget_nano, k.is_active, k.created_at, \
                 k.last_used_at, coalesce(p.spent, 0) AS spent FROM api_key k \
                 LEFT JOIN purse p ON p.kind = $2 AND p.owner = k.id AND p.win = $3 \
                 WHERE k.account_id = $1 AND k.deleted_at IS NULL ORDER BY k.created_at DESC, k.id DESC",
                [account.uuid().into(), PurseKind::Budget.code().into(), now.month().index().into()],
            )
            .await?;
        rows.iter().map(key_row).collect()
    }

    /// Changes an account's key.
    pub async fn update_key(&self, account: AccountId, id: KeyId, change: KeyChange) -> Result<(), UpdateKeyError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let name = change.name.clone();
            let budget = change.monthly_budget;
            let touched = tx
                .run(
                    "UPDATE api_key SET name = CASE WHEN $3 THEN $4 ELSE name END, \
                     rate_limit_rpm = coalesce($5, rate_limit_rpm), \
                     budget_nano = CASE WHEN $6 THEN $7 ELSE budget_nano END, is_active = coalesce($8, is_active) \
                     WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL",
                    [
                        id.uuid().into(),
                        account.uuid().into(),
                        name.is_some().into(),
                        name.flatten().into(),
                        change.rate_limit_rpm.map(i64::from).into(),
                        budget.is_some().into(),
                        budget.flatten().map(Amount::nanos).into(),
                        change.is_active.into(),
                    ],
                )
                .await?;
            tx.commit().await?;
            Ok(touched)
        });
        match run.await {
            Ok(0) => Err(UpdateKeyError::NotFound),
            Ok(touched) => {
                if change.monthly_budget.is_some() {
                    // The budget stands. Where waking fails, who waits is asked again by and by.
                    let _ = wake(&self.db, account, WAITS_FOR_BUDGET, Some(id)).await;
                }
                exactly(touched, 1, "api_key").map_err(UpdateKeyError::Store)
            }
            Err(cause) => Err(UpdateKeyError::Store(cause)),
        }
    }

    /// Deletes an account's key for good.
    pub async fn delete_key(&self, account: AccountId, id: KeyId, now: Timestamp) -> Result<(), UpdateKeyError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let touched = tx
                .run(
                    "UPDATE api_key SET deleted_at = $3, is_active = $4 \
                     WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL",
                    [id.uuid().into(), account.uuid().into(), now.micros().into(), false.into()],
                )
                .await?;
            tx.commit().await?;
            Ok(touched)
        });
        match run.await {
            Ok(0) => Err(UpdateKeyError::NotFound),
            Ok(_) => Ok(()),
            Err(cause) => Err(UpdateKeyError::Store(cause)),
        }
    }

    /// What was charged to a key in a month.
    pub async fn spent_in_month(&self, key: KeyId, month: Month) -> Result<Amount, StoreError> {
        let row = self
            .db
            .one(
                "SELECT spent FROM purse WHERE kind = $1 AND owner = $2 AND win = $3",
                [PurseKind::Budget.code().into(), key.uuid().into(), month.index().into()],
            )
            .await?;
        row.map_or(Ok(Amount::ZERO), |row| stored_amount(&row, "purse", "spent"))
    }
}

impl Keys {
    /// The key with this secret's hash, if it works: active, not deleted, its user not disabled.
    pub async fn key_by_hash(&self, hash: [u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        let row = self
            .db
            .one(
                "SELECT k.id, k.account_id, k.rate_limit_rpm, k.budget_nano, u.role FROM api_key k \
                 JOIN app_user u ON u.id = k.account_id \
                 WHERE k.hash = $1 AND k.is_active = $2 AND k.deleted_at IS NULL AND u.disabled = $3",
                [hash.to_vec().into(), true.into(), false.into()],
            )
            .await?;
        row.map(|row| key_record(&row, stored::<Role>(&row, "app_user", "role")? == Role::Admin)).transpose()
    }

    /// The key's own record by id, also when it is off: a batch goes on being paid for by the key that made it.
    pub async fn key_record(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let row = self
            .db
            .one("SELECT id, account_id, rate_limit_rpm, budget_nano FROM api_key WHERE id = $1", [id.uuid().into()])
            .await?;
        row.map(|row| key_record(&row, false)).transpose()
    }

    /// Notes when keys were last used.
    pub async fn touch_keys(&self, used: &[(KeyId, Timestamp)]) -> Result<(), StoreError> {
        // Every transaction locks rows in one order.
        let mut used = used.to_vec();
        used.sort_unstable();
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            for (key, at) in &used {
                tx.run(
                    "UPDATE api_key SET last_used_at = $2 WHERE id = $1 AND coalesce(last_used_at, 0) < $2",
                    [key.uuid().into(), at.micros().into()],
                )
                .await?;
            }
            tx.commit().await
        })
        .await
    }
}

fn key_record(row: &Row, admin: bool) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        id: KeyId::new(row.get("id")?),
        account: AccountId::new(row.get("account_id")?),
        rate_limit_rpm: rpm(row)?,
        monthly_budget: budget(row)?,
        admin,
    })
}

fn key_row(row: &Row) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: KeyId::new(row.get("id")?),
        name: row.get("name")?,
        last4: row.get("last4")?,
        rate_limit_rpm: rpm(row)?,
        monthly_budget: budget(row)?,
        spent_this_month: stored_amount(row, "purse", "spent")?,
        is_active: row.get("is_active")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        last_used_at: row.get::<Option<i64>>("last_used_at")?.map(Timestamp::from_micros),
    })
}
