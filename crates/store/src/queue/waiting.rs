//! Holds: batches that wait for money, and what wakes them.
//!
//! Who waits is not asked again and again: credit, a higher budget and holds that end wake them. Of all batches of an
//! account that wait for the same, one is asked at a time. What is too little for one may do for another, so they are
//! asked in turn: each once after it was woken.

use batchin_db::{Rerun, Value, retried};
use batchin_domain::{AccountId, Amount, BatchId, KeyId, Month, PurseKind, Timestamp};

use crate::{
    Claims, Openings, StoreError,
    stored::unsigned,
    waking::{InLine, WAITING, WAITS_FOR_BALANCE, WAITS_FOR_BUDGET, WOKEN, lock_line, put, wake},
};

/// What a batch says whose highest cost is in use by tasks that run.
pub const WAITS_FOR_CAP: &str = "max_cost";

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

impl Claims {
    /// Lets a batch wait for money. While something is set aside, its answer is that of all others of its account that
    /// would be asked about the same just as soon: the next in turn is. Who has been woken is asked all the same.
    pub async fn await_money(&self, unpaid: Unpaid) -> Result<(), StoreError> {
        let Unpaid { batch, account, wait, needed, soon, later } = unpaid;
        let held = self.means(account, wait).await?.is_some_and(|means| means.held);
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let line = lock_line(&tx, (account, wait.reason(), wait.key()), Some(batch)).await?;
            let due = |one: &&InLine| one.id != batch.uuid() && one.until > WOKEN && one.until <= soon.micros();
            let others: Vec<_> = line.iter().filter(due).collect();
            let at = |place: usize| soon.micros().saturating_add(i64::try_from(place).unwrap_or(i64::MAX));
            if held {
                for (place, other) in others.iter().enumerate() {
                    put(&tx, other.id, at(place)).await?;
                }
            }
            // Behind those that have not been asked since.
            let until = if held { at(others.len()) } else { later.micros() };
            tx.run(
                "UPDATE batch SET blocked = $2, blocked_until = $3 WHERE id = $1 AND status IN (0, 1)",
                [batch.uuid().into(), wait.reason().into(), until.into()],
            )
            .await?;
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
            let tx = self.db.write().await?;
            // Every transaction locks rows in one order.
            let due = format!(
                "SELECT id FROM batch WHERE {WAITING} AND (blocked_until <= $4 OR id = $5) ORDER BY id{}",
                tx.dialect.for_update()
            );
            let values: [Value; 5] = [
                account.uuid().into(),
                reason.into(),
                None::<uuid::Uuid>.into(),
                now.micros().into(),
                batch.uuid().into(),
            ];
            let mut left = others;
            for row in tx.all(due, values).await? {
                let id: uuid::Uuid = row.get("id")?;
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

    /// Has the batches of an account, or of one of its keys, asked again that wait for this reason: who waits for longest
    /// first, and behind those that were woken before.
    pub async fn wake_waiting(&self, account: AccountId, reason: &str, key: Option<KeyId>) -> Result<(), StoreError> {
        wake(&self.db, account, reason, key).await
    }

    /// What the purse has. `None`: its owner is gone.
    async fn means(&self, account: AccountId, wait: MoneyWait) -> Result<Option<Means>, StoreError> {
        let row = match wait {
            MoneyWait::Balance => {
                let sql = "SELECT posted_credit - posted_debit - pending_debit AS available, pending_debit AS held \
                           FROM account WHERE id = $1";
                self.db.one(sql, [account.uuid().into()]).await?
            }
            MoneyWait::Budget { key, month } => {
                // The limit as it is now: whoever raised it before this wait was stored woke nobody. None is no limit.
                let sql = "SELECT coalesce(k.budget_nano - coalesce(p.spent, 0) - coalesce(p.leased, 0), \
                           9223372036854775807) AS available, coalesce(p.leased, 0) AS held FROM api_key k \
                           LEFT JOIN purse p ON p.kind = $1 AND p.owner = k.id AND p.win = $3 WHERE k.id = $2";
                let values: [Value; 3] = [PurseKind::Budget.code().into(), key.uuid().into(), month.index().into()];
                self.db.one(sql, values).await?
            }
        };
        row.map(|row| Ok(Means { available: row.get("available")?, held: row.get::<i64>("held")? > 0 })).transpose()
    }
}

impl Openings {
    /// How many batches of an account have not ended, and whether it has any credit.
    pub async fn open_batches(&self, account: AccountId) -> Result<(u64, bool), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM batch b WHERE b.account_id = a.id AND b.finished_at IS NULL) AS n, \
                   a.posted_credit > a.posted_debit AS credit FROM account a WHERE a.id = $1";
        let Some(row) = self.db.one(sql, [account.uuid().into()]).await? else { return Ok((0, false)) };
        Ok((unsigned(&row, "batch", "n")?, row.get("credit")?))
    }
}
