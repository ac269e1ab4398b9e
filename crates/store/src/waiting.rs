//! Holds: batches that wait for money, and what wakes them.
//!
//! Who waits is not asked again and again: credit, a higher budget and holds that end wake them. Of all batches of an
//! account that wait for the same, one is asked at a time, and its answer is the others' too.

use std::collections::BTreeSet;

use batchin_domain::{AccountId, Amount, BatchId, KeyId, Month, PurseKind, Timestamp};
use sea_orm::Value;

use crate::{
    Store, StoreError,
    batches::unsigned,
    connect::{Rerun, WriteTx, retried},
};

/// What a batch says while its account's balance does not cover its next task.
pub const WAITS_FOR_BALANCE: &str = "payment_required";
/// What a batch says while its key's budget of the month does not cover its next task.
pub const WAITS_FOR_BUDGET: &str = "budget_used_up";

/// What a batch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyWait {
    /// Its account's balance.
    Balance,
    /// Its key's budget of a month.
    Budget {
        /// The key.
        key: KeyId,
        /// The month.
        month: Month,
        /// What may be spent in it.
        limit: Amount,
    },
}

/// A batch whose next task could not be paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpaid {
    /// The batch.
    pub batch: BatchId,
    /// Who pays.
    pub account: AccountId,
    /// What it waits for.
    pub wait: MoneyWait,
    /// What the task needs.
    pub needed: Amount,
    /// When it is asked again while something is set aside that may come back.
    pub soon: Timestamp,
    /// When it is asked again though nothing woke it: who wakes may die before it does.
    pub later: Timestamp,
}

/// What there is to spend.
struct Means {
    available: i64,
    held: bool,
}

impl MoneyWait {
    /// What the batch says.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Balance => WAITS_FOR_BALANCE,
            Self::Budget { .. } => WAITS_FOR_BUDGET,
        }
    }

    const fn key(self) -> Option<KeyId> {
        match self {
            Self::Balance => None,
            Self::Budget { key, .. } => Some(key),
        }
    }
}

impl Store {
    /// Lets a batch wait for money, and with it all others of its account that were due to be asked about the same.
    pub async fn await_money(&self, unpaid: Unpaid) -> Result<(), StoreError> {
        let Unpaid { batch, account, wait, needed, soon, later } = unpaid;
        let held = self.means(account, wait).await?.is_some_and(|means| means.held);
        let until = if held { soon } else { later };
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            let due = locking(&tx, " AND (blocked_until <= $4 OR id = $5)");
            let values: [Value; 5] = [
                account.uuid().into(),
                wait.reason().into(),
                wait.key().map(KeyId::uuid).into(),
                soon.micros().into(),
                batch.uuid().into(),
            ];
            let mut waiting = BTreeSet::from([batch.uuid()]);
            for row in tx.all(due, values).await? {
                waiting.insert(row.try_get("", "id")?);
            }
            for id in waiting {
                tx.run(
                    "UPDATE batch SET blocked = $2, blocked_until = $3 WHERE id = $1 AND status IN (0, 1)",
                    [id.into(), wait.reason().into(), until.micros().into()],
                )
                .await?;
            }
            tx.commit().await
        })
        .await?;
        // Who credits wakes after the commit, and who waits looks after its own: one of the two sees the other.
        if let Some(means) = self.means(account, wait).await?
            && means.available >= needed.nanos()
        {
            self.wake_waiting(account, wait.reason(), wait.key()).await?;
        }
        Ok(())
    }

    /// A task of the batch could be paid for: it waits no longer, and neither do up to `others` of its account that
    /// waited for the same and are due.
    pub async fn paid(
        &self,
        (batch, account): (BatchId, AccountId),
        reason: &str,
        others: u32,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            let due = locking(&tx, " AND (blocked_until <= $4 OR id = $5)");
            let values: [Value; 5] = [
                account.uuid().into(),
                reason.into(),
                None::<uuid::Uuid>.into(),
                now.micros().into(),
                batch.uuid().into(),
            ];
            let mut left = others;
            for row in tx.all(due, values).await? {
                let id: uuid::Uuid = row.try_get("", "id")?;
                if id != batch.uuid() {
                    if left == 0 {
                        continue;
                    }
                    left -= 1;
                }
                tx.run("UPDATE batch SET blocked = NULL, blocked_until = 0 WHERE id = $1", [id.into()]).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Has the batches of an account, or of one of its keys, asked again that wait for this reason.
    pub async fn wake_waiting(&self, account: AccountId, reason: &str, key: Option<KeyId>) -> Result<(), StoreError> {
        let values = || [account.uuid().into(), reason.into(), key.map(KeyId::uuid).into()];
        // Nobody waits, nearly always: then nothing is written.
        let waiting = self.one(format!("SELECT id FROM batch WHERE {WAITING} AND blocked_until > 0 LIMIT 1"), values());
        if waiting.await?.is_none() {
            return Ok(());
        }
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            for row in tx.all(locking(&tx, " AND blocked_until > 0"), values()).await? {
                let id: uuid::Uuid = row.try_get("", "id")?;
                tx.run("UPDATE batch SET blocked_until = 0 WHERE id = $1", [id.into()]).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// How many batches of an account have not ended, and whether it has any credit.
    pub async fn open_batches(&self, account: AccountId) -> Result<(u64, bool), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM batch b WHERE b.account_id = a.id AND b.finished_at IS NULL) AS n, \
                   a.posted_credit > a.posted_debit AS credit FROM account a WHERE a.id = $1";
        let Some(row) = self.one(sql, [account.uuid().into()]).await? else { return Ok((0, false)) };
        Ok((unsigned(&row, "batch", "n")?, row.try_get("", "credit")?))
    }

    /// What the purse has. `None`: it or its owner is gone, or nothing was spent of it yet.
    async fn means(&self, account: AccountId, wait: MoneyWait) -> Result<Option<Means>, StoreError> {
        let row = match wait {
            MoneyWait::Balance => {
                let sql = "SELECT posted_credit - posted_debit - pending_debit AS available, pending_debit AS held \
                           FROM account WHERE id = $1";
                self.one(sql, [account.uuid().into()]).await?
            }
            MoneyWait::Budget { key, month, limit } => {
                let sql = "SELECT CAST($4 AS bigint) - spent - leased AS available, leased AS held FROM purse \
                           WHERE kind = $1 AND owner = $2 AND win = $3";
                let values: [Value; 4] =
                    [PurseKind::Budget.code().into(), key.uuid().into(), month.index().into(), limit.nanos().into()];
                self.one(sql, values).await?
            }
        };
        row.map(|row| Ok(Means { available: row.try_get("", "available")?, held: row.try_get::<i64>("", "held")? > 0 }))
            .transpose()
    }
}

/// Batches of `$1` that wait for `$2`, of key `$3` if it is given.
const WAITING: &str = "account_id = $1 AND finished_at IS NULL AND status IN (0, 1) AND blocked = $2 \
     AND ($3 IS NULL OR key_id = $3)";

/// Every transaction locks rows in one order.
fn locking(tx: &WriteTx, more: &str) -> String {
    format!("SELECT id FROM batch WHERE {WAITING}{more} ORDER BY id{}", tx.dialect.for_update())
}
