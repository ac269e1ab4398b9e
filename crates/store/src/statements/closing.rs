//! Holds: ending a month for good.

use std::{collections::BTreeMap, time::Duration};

use batchin_db::{Rerun, Row, Snapshot, WriteTx, exactly, retried};
use batchin_domain::{AccountId, Timestamp, TopupStatus};
use uuid::Uuid;

use super::{
    PaymentLinks, StatementHolder, Statements, codes_of_credit,
    cursor::{CURSOR, Cursor, write_cursor},
    of_account,
    piece::Ended,
};
use crate::{StoreError, money::booking::lock_account};

/// How long after its end a month in which nothing followed is closed. Which month a late charge stands in is decided by
/// the account's order whatever this is; it is longer than a group commit is tried again and a lost node's charges
/// come, so that they stand where they were made.
const CLOSES_AFTER: Duration = Duration::from_secs(3_600);

/// Papers of payments, by payment.
pub(super) type Links = BTreeMap<Uuid, PaymentLinks>;

impl Statements {
    /// Closes the open month where it is over and nothing of a later one has come. False: something has come in between,
    /// and must be added up first.
    pub(super) async fn close_what_is_over(&self, account: AccountId, now: Timestamp) -> Result<bool, StoreError> {
        let is_over = |cursor: Cursor| cursor.month.next().start().after(CLOSES_AFTER) <= now;
        let known = self.db.one(CURSOR, [account.uuid().into()]).await?;
        if !known.as_ref().map(Cursor::of).transpose()?.is_some_and(is_over) {
            return Ok(true);
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // Whoever commits a movement has the account locked.
            let Some(locked) = lock_account(&tx, account).await? else { return Ok(true) };
            let cursor = tx.one(CURSOR, [account.uuid().into()]).await?.as_ref().map(Cursor::of).transpose()?;
            let Some(cursor) = cursor.filter(|cursor| is_over(*cursor)) else { return Ok(true) };
            if locked.standing().1 != cursor.seq {
                return Ok(false);
            }
            let next = Cursor { month: now.month(), ..cursor };
            if !write_cursor(&tx, account, true, next).await? {
                return Ok(false);
            }
            let ended = Ended { month: cursor.month, last_seq: cursor.seq, closing: cursor.balance };
            write(&tx, account, &ended, now).await?;
            tx.commit().await.map(|()| true)
        })
        .await
    }
}

/// Writes down a month that has ended, with what may change later.
pub(super) async fn write(tx: &WriteTx, account: AccountId, ended: &Ended, now: Timestamp) -> Result<(), StoreError> {
    let sql = "SELECT coalesce(max(last_seq), 0) AS last FROM statement_month WHERE account_id = $1";
    let first: i64 = tx.one(sql, of_account(account, [])).await?.map_or(Ok(0), |row| row.get("last"))?;
    let sql = holder_sql();
    let holder = holder(tx.one(sql, of_account(account, [])).await?.as_ref())?;
    let links = links(&tx.all(links_sql(), of_account(account, [first.into(), ended.last_seq.into()])).await?)?;
    let sql = "INSERT INTO statement_month (account_id, month, last_seq, closing, holder, links, closed_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let values = [
        ended.month.index().into(),
        ended.last_seq.into(),
        ended.closing.into(),
        text(&holder)?.into(),
        text(&links)?.into(),
        now.micros().into(),
    ];
    exactly(tx.run(sql, of_account(account, values)).await?, 1, "statement_month")
}

/// What is known now of a month that is open and begins after this movement.
pub(super) async fn so_far(
    view: &Snapshot,
    account: AccountId,
    (after, last): (i64, i64),
) -> Result<(StatementHolder, Links), StoreError> {
    let holder = holder(view.all(holder_sql(), of_account(account, [])).await?.first())?;
    let links = links(&view.all(links_sql(), of_account(account, [after.into(), last.into()])).await?)?;
    Ok((holder, links))
}

fn text(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { table: "topup", column: "buyer" })
}

fn holder_sql() -> String {
    format!(
        "SELECT u.name, u.email, (SELECT p.buyer FROM topup p WHERE p.account_id = u.id AND p.status = {} \
         AND p.buyer IS NOT NULL ORDER BY p.completed_at DESC, p.id DESC LIMIT 1) AS buyer \
         FROM app_user u WHERE u.id = $1",
        TopupStatus::Completed.code()
    )
}

fn holder(row: Option<&Row>) -> Result<StatementHolder, StoreError> {
    let Some(row) = row else { return Ok(StatementHolder::default()) };
    Ok(StatementHolder { name: row.get("name")?, email: row.get("email")?, buyer: row.get("buyer")? })
}

fn links_sql() -> String {
    format!(
        "SELECT id, receipt_url, invoice_url, invoice FROM topup WHERE id IN (SELECT topup_id FROM transfer \
         WHERE account_id = $1 AND seq > $2 AND seq <= $3 AND movement IN ({}) AND topup_id IS NOT NULL)",
        codes_of_credit()
    )
}

fn links(rows: &[Row]) -> Result<Links, StoreError> {
    let links = |row: &Row| {
        let links = PaymentLinks {
            receipt_url: row.get("receipt_url")?,
            invoice_url: row.get("invoice_url")?,
            invoice: row.get("invoice")?,
        };
        Ok((row.get("id")?, links))
    };
    rows.iter().map(links).collect()
}
