//! Holds: what operators did about money, and why. It is added to and never changed: the database refuses it.

use batchin_db::{Db, Row, Value, WriteTx, exactly};
use batchin_domain::{AccountId, Amount, Timestamp};
use uuid::Uuid;

use crate::{StoreError, stored::stored_amount};

/// What operators did. Held by who shows it to them.
#[derive(Clone)]
pub struct AdminLog {
    pub(crate) db: Db,
}

/// One thing that an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAction {
    /// Names it, and says where the next page begins.
    pub id: Uuid,
    /// An admin's email, or `command line`.
    pub actor: String,
    /// What: a word with a dot, such as `credit.granted`.
    pub action: String,
    /// Whose account.
    pub account: Option<AccountId>,
    /// What it was done to or by: a movement's id.
    pub subject: Option<Uuid>,
    /// How much.
    pub amount: Option<Amount>,
    /// Why.
    pub reason: String,
    /// When.
    pub created_at: Timestamp,
}

/// Which actions are asked for.
#[derive(Clone, Copy, Debug)]
pub struct WantedActions {
    /// At most so many.
    pub limit: u32,
    /// Those that follow this one in the list.
    pub after: Option<Uuid>,
    /// Those about this account.
    pub account: Option<AccountId>,
}

/// An entry to be added.
pub(crate) struct LogEntry<'a> {
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    pub(crate) account: Option<AccountId>,
    pub(crate) subject: Option<Uuid>,
    pub(crate) amount: Option<Amount>,
    pub(crate) reason: &'a str,
    pub(crate) now: Timestamp,
}

/// Adds an entry in the transaction of what it tells of. Its id is its subject's, so that each is told once.
pub(crate) async fn append(tx: &WriteTx, entry: &LogEntry<'_>) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "INSERT INTO admin_log (id, actor, action, account_id, subject, amount, reason, created_at) \
             VALUES ($1,$2,$3,$4,$5,$6,$7,$8)",
            [
                entry.subject.unwrap_or_default().into(),
                entry.actor.into(),
                entry.action.into(),
                entry.account.map(AccountId::uuid).into(),
                entry.subject.into(),
                entry.amount.map(Amount::nanos).into(),
                entry.reason.into(),
                entry.now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "admin_log")
}

impl AdminLog {
    /// Newest first.
    pub async fn actions(&self, wanted: WantedActions) -> Result<Vec<AdminAction>, StoreError> {
        let mut sql =
            "SELECT id, actor, action, account_id, subject, amount, reason, created_at FROM admin_log WHERE TRUE"
                .to_owned();
        let mut values: Vec<Value> = vec![i64::from(wanted.limit).into()];
        if let Some(after) = wanted.after {
            values.push(after.into());
            let at = values.len();
            sql.push_str(&format!(
                " AND (created_at, id) < ((SELECT created_at FROM admin_log WHERE id = ${at}), ${at})"
            ));
        }
        if let Some(account) = wanted.account {
            values.push(account.uuid().into());
            sql.push_str(&format!(" AND account_id = ${}", values.len()));
        }
        sql.push_str(" ORDER BY created_at DESC, id DESC LIMIT $1");
        self.db.all(sql, values).await?.iter().map(action).collect()
    }
}

fn action(row: &Row) -> Result<AdminAction, StoreError> {
    let account: Option<Uuid> = row.get("account_id")?;
    let amount: Option<i64> = row.get("amount")?;
    Ok(AdminAction {
        id: row.get("id")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        account: account.map(AccountId::new),
        subject: row.get("subject")?,
        amount: amount.map(|_| stored_amount(row, "admin_log", "amount")).transpose()?,
        reason: row.get("reason")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}
