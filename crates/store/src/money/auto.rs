//! Holds: payments that are made by themselves when a balance goes low: whose wish it is, and when one is due.

use batchin_db::{Db, Rerun, Row, Value, WriteTx, exactly, retried};
use batchin_domain::{AccountId, Amount, Timestamp, TopupId, TopupSource, TopupStatus};
use uuid::Uuid;

use crate::{StoreError, money::booking::lock_account, stored::stored_amount};

const AUTO: &str = "auto_topup";

/// Payments that are made by themselves. Held by who lets owners ask for them, and by who makes them.
#[derive(Clone)]
pub struct AutoTopups {
    pub(crate) db: Db,
}

/// What an owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoWish {
    /// Whether anything is paid by itself at all.
    pub enabled: bool,
    /// Once the balance is below this.
    pub threshold: Amount,
    /// So much at a time; above zero.
    pub amount: Amount,
    /// At most so much in a calendar month, UTC.
    pub ceiling: Amount,
}

/// How it stands with an account's payments by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoTopup {
    /// What its owner wants.
    pub wish: AutoWish,
    /// Stripe's customer, once a payment method was saved.
    pub customer: Option<String>,
    /// The saved payment method.
    pub method: Option<String>,
    /// What of it may be shown.
    pub shown: Option<String>,
    /// Why nothing is paid any more until a method is saved or the wish is said again: a word.
    pub stopped: Option<String>,
}

/// A payment method that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedForAuto {
    /// Stripe's customer.
    pub customer: String,
    /// Stripe's name for it.
    pub method: String,
    /// What of it may be shown.
    pub shown: Option<String>,
}

/// The accounts of which one payment is due: enabled, with a method, below the threshold, able to spend, none under way, and below
/// the ceiling of this month with one more.
const DUE: &str = "t.enabled AND t.method IS NOT NULL AND t.customer IS NOT NULL AND t.stopped IS NULL \
     AND a.posted_credit - a.posted_debit < t.threshold AND NOT a.frozen \
     AND NOT EXISTS (SELECT 1 FROM app_user u WHERE u.id = t.account_id AND u.disabled) \
     AND NOT EXISTS (SELECT 1 FROM topup p WHERE p.account_id = t.account_id AND p.source = {automatic} AND p.status IN (0, 1)) \
     AND t.amount + coalesce((SELECT CAST(sum(p.amount) AS bigint) FROM topup p WHERE p.account_id = t.account_id \
     AND p.source = {automatic} AND p.status = {completed} AND p.created_at >= $1), 0) <= t.ceiling";

fn due() -> String {
    let automatic = TopupSource::Automatic.code().to_string();
    DUE.replace("{automatic}", &automatic).replace("{completed}", &TopupStatus::Completed.code().to_string())
}

impl AutoTopups {
    /// How it stands with an account; `None`: nothing was ever asked for.
    pub async fn auto_topup(&self, account: AccountId) -> Result<Option<AutoTopup>, StoreError> {
        let sql = "SELECT enabled, threshold, amount, ceiling, customer, method, shown, stopped FROM auto_topup \
                   WHERE account_id = $1";
        let row = self.db.one(sql, [account.uuid().into()]).await?;
        row.as_ref().map(auto_topup).transpose()
    }

    /// Puts another wish in place of an owner's; one that is said again goes on where a refusal had stopped it.
    pub async fn set_auto_topup(&self, account: AccountId, wish: &AutoWish, now: Timestamp) -> Result<(), StoreError> {
        let values: [Value; 6] = [
            account.uuid().into(),
            wish.enabled.into(),
            wish.threshold.nanos().into(),
            wish.amount.nanos().into(),
            wish.ceiling.nanos().into(),
            now.micros().into(),
        ];
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO auto_topup (account_id, enabled, threshold, amount, ceiling, changed_at) \
                 VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT (account_id) DO UPDATE SET enabled = excluded.enabled, \
                 threshold = excluded.threshold, amount = excluded.amount, ceiling = excluded.ceiling, stopped = NULL, \
                 changed_at = excluded.changed_at",
                values.clone(),
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Remembers by which page an owner is saving a payment method; the one before counts no more.
    pub async fn note_setup(&self, account: AccountId, setup: Uuid, now: Timestamp) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO auto_topup (account_id, enabled, threshold, amount, ceiling, setup, changed_at) \
                 VALUES ($1, $4, 0, 0, 0, $2, $3) ON CONFLICT (account_id) DO UPDATE SET setup = excluded.setup",
                [account.uuid().into(), setup.into(), now.micros().into(), false.into()],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// A payment method was saved on this page: whose it is, if it is the last one that was opened for anybody.
    pub async fn save_method(&self, setup: Uuid, saved: &SavedForAuto) -> Result<Option<AccountId>, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let row = tx.one("SELECT account_id FROM auto_topup WHERE setup = $1", [setup.into()]).await?;
            let Some(row) = row else { return Ok(None) };
            let sql = "UPDATE auto_topup SET customer = $2, method = $3, shown = $4, stopped = NULL WHERE setup = $1 \
                       AND (method IS NULL OR method <> $3)";
            let values = [
                setup.into(),
                saved.customer.as_str().into(),
                saved.method.as_str().into(),
                saved.shown.clone().into(),
            ];
            tx.run(sql, values).await?;
            tx.commit().await?;
            row.get("account_id").map(|id| Some(AccountId::new(id)))
        })
        .await
    }

    /// Accounts of which a payment is due, at most `limit`; `month` is when this month began.
    pub async fn due_accounts(&self, month: Timestamp, limit: u32) -> Result<Vec<AccountId>, StoreError> {
        let sql = format!(
            "SELECT t.account_id FROM auto_topup t JOIN account a ON a.id = t.account_id WHERE {} \
             ORDER BY t.account_id LIMIT $2",
            due()
        );
        let rows = self.db.all(sql, [month.micros().into(), i64::from(limit).into()]).await?;
        rows.iter().map(|row| row.get("account_id").map(AccountId::new)).collect()
    }

    /// Begins the payment of an account, if one is still due; whether it was.
    pub async fn open_automatic(
        &self,
        (account, id): (AccountId, TopupId),
        month: Timestamp,
        (now, due_at): (Timestamp, Timestamp),
    ) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // Whoever else begins one waits here, and finds it.
            if lock_account(&tx, account).await?.is_none() {
                return Ok(false);
            }
            let opened = open(&tx, (account, id), month, (now, due_at)).await?;
            tx.commit().await.map(|()| opened)
        })
        .await
    }
}

async fn open(
    tx: &WriteTx,
    (account, id): (AccountId, TopupId),
    month: Timestamp,
    (now, due_at): (Timestamp, Timestamp),
) -> Result<bool, StoreError> {
    let known = tx.one("SELECT 1 AS n FROM topup WHERE id = $1", [id.uuid().into()]).await?;
    if known.is_some() {
        return Ok(true);
    }
    let sql = format!(
        "SELECT t.amount, t.customer, t.method FROM auto_topup t JOIN account a ON a.id = t.account_id \
         WHERE t.account_id = $2 AND {}",
        due()
    );
    let Some(row) = tx.one(sql, [month.micros().into(), account.uuid().into()]).await? else { return Ok(false) };
    let (customer, method): (String, String) = (row.get("customer")?, row.get("method")?);
    let sql = "INSERT INTO topup (id, account_id, source, status, amount, customer, method, created_at, due_at) \
               VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)";
    let values = [
        id.uuid().into(),
        account.uuid().into(),
        TopupSource::Automatic.code().into(),
        TopupStatus::Created.code().into(),
        stored_amount(&row, AUTO, "amount")?.nanos().into(),
        customer.into(),
        method.into(),
        now.micros().into(),
        due_at.micros().into(),
    ];
    exactly(tx.run(sql, values).await?, 1, "topup")?;
    Ok(true)
}

/// A refusal ends payments by themselves until their owner does something about it.
pub(crate) async fn stop(tx: &WriteTx, account: AccountId, why: &str) -> Result<(), StoreError> {
    let sql = "UPDATE auto_topup SET stopped = $2 WHERE account_id = $1";
    tx.run(sql, [account.uuid().into(), why.into()]).await.map(drop)
}

fn auto_topup(row: &Row) -> Result<AutoTopup, StoreError> {
    Ok(AutoTopup {
        wish: AutoWish {
            enabled: row.get("enabled")?,
            threshold: stored_amount(row, AUTO, "threshold")?,
            amount: stored_amount(row, AUTO, "amount")?,
            ceiling: stored_amount(row, AUTO, "ceiling")?,
        },
        customer: row.get("customer")?,
        method: row.get("method")?,
        shown: row.get("shown")?,
        stopped: row.get("stopped")?,
    })
}
