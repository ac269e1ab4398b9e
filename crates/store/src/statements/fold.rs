//! Holds: adding up what an account's movements come to, behind the ledger.
//!
//! Each piece is read from one view of the database and written as one transaction, which is refused where somebody else
//! has added something up since. So any number of nodes may do it at once, and one that dies leaves nothing half done.

use std::collections::HashMap;

use batchin_db::{Rerun, Row, Snapshot, Source, Value, WriteTx, retried};
use batchin_domain::{AccountId, Timestamp};
use uuid::Uuid;

use super::{
    Statements, closing,
    cursor::{Cursor, cursor, write_cursor},
    of_account,
    piece::{Piece, Transfer, Waiting, add_up},
    requests,
};
use crate::{
    StoreError,
    stored::{stored, stored_amount},
};

/// Movements added up at once: what one transaction and its memory hold with ease.
const PIECE: i64 = 10_000;
/// Movements that a reader adds up without being kept waiting; whoever has more is looked after in the background.
const READERS_SHARE: i64 = 5_000;
/// Accounts looked after in one round.
const ACCOUNTS_A_ROUND: i64 = 1_000;

impl Statements {
    /// Adds up for accounts of which much is not added up yet, so that their readers need not wait for it. Any number of
    /// nodes may do it at once.
    pub async fn keep_up(&self, now: Timestamp) -> Result<(), StoreError> {
        let sql = "SELECT a.id FROM account a LEFT JOIN statement_cursor c ON c.account_id = a.id \
                   WHERE a.last_seq > coalesce(c.seq, 0) + $1 LIMIT $2";
        for row in self.db.all(sql, [READERS_SHARE.into(), ACCOUNTS_A_ROUND.into()]).await? {
            self.catch_up(AccountId::new(row.get("id")?), now).await?;
        }
        Ok(())
    }

    /// Adds up all that is there now, and closes the month that is over.
    pub(super) async fn catch_up(&self, account: AccountId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "SELECT last_seq FROM account WHERE id = $1";
        let Some(row) = self.db.one(sql, [account.uuid().into()]).await? else { return Ok(()) };
        let last: i64 = row.get("last_seq")?;
        loop {
            let seq = self.fold(account, now).await?;
            if seq >= last && self.close_what_is_over(account, now).await? {
                return Ok(());
            }
        }
    }

    /// Adds up one piece; the last movement that is added up now.
    async fn fold(&self, account: AccountId, now: Timestamp) -> Result<i64, StoreError> {
        retried(Rerun::Harmless, || async {
            let view = self.db.snapshot().await?;
            let before = cursor(&view, account).await?;
            let transfers = transfers(&view, account, before.map_or(0, |cursor| cursor.seq)).await?;
            let waiting = waiting(&view, account).await?;
            let Some(start) = before.or_else(|| Some(first_cursor(transfers.first()?))) else { return Ok(0) };
            if transfers.is_empty() && waiting.is_empty() {
                return Ok(start.seq);
            }
            let mut wanted: HashMap<Uuid, i64> = waiting.iter().map(|(id, one)| (*id, one.came_at)).collect();
            for transfer in &transfers {
                if let Some(id) = transfer.request.filter(|_| !transfer.movement.is_of_credit()) {
                    wanted.entry(id).or_insert(transfer.created_at.micros());
                }
            }
            let requests = requests::of(&view, account, &wanted).await?;
            drop(view);
            let piece = add_up(start, &transfers, (&requests, waiting), now)?;
            let tx = self.db.write().await?;
            // Where somebody else was faster, what they added up is there.
            if !write_cursor(&tx, account, before.is_some(), piece.cursor).await? {
                return Ok(start.seq);
            }
            write(&tx, account, &piece, now).await?;
            tx.commit().await.map(|()| piece.cursor.seq)
        })
        .await
    }
}

/// Before an account's first movement.
fn first_cursor(first: &Transfer) -> Cursor {
    Cursor { seq: 0, month: first.created_at.month(), balance: 0, version: 0 }
}

async fn transfers(view: &Snapshot, account: AccountId, after: i64) -> Result<Vec<Transfer>, StoreError> {
    let sql = "SELECT seq, movement, amount, request_id, created_at FROM transfer \
               WHERE account_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";
    let rows =
        view.all(sql.to_owned(), of_account(account, [after.into(), after.saturating_add(PIECE).into()])).await?;
    let transfer = |row: &Row| {
        Ok(Transfer {
            seq: row.get("seq")?,
            movement: stored(row, "transfer", "movement")?,
            amount: stored_amount(row, "transfer", "amount")?,
            request: row.get("request_id")?,
            created_at: Timestamp::from_micros(row.get("created_at")?),
        })
    };
    rows.iter().map(transfer).collect()
}

async fn waiting(view: &Snapshot, account: AccountId) -> Result<HashMap<Uuid, Waiting>, StoreError> {
    let sql = "SELECT request_id, came_at, day, charged FROM statement_request WHERE account_id = $1";
    let rows = view.all(sql.to_owned(), of_account(account, [])).await?;
    let waiting = |row: &Row| {
        let one = Waiting { came_at: row.get("came_at")?, day: row.get("day")?, charged: row.get("charged")? };
        Ok((row.get("request_id")?, one))
    };
    rows.iter().map(waiting).collect()
}

async fn write(tx: &WriteTx, account: AccountId, piece: &Piece, now: Timestamp) -> Result<(), StoreError> {
    for ended in &piece.ended {
        closing::write(tx, account, ended, now).await?;
    }
    let id = account.uuid();
    let sums = piece.sums.iter().flat_map(|((month, day, key, model, version), sum)| -> [Value; 10] {
        [
            id.into(),
            (*month).into(),
            (*day).into(),
            (*key).into(),
            model.as_str().into(),
            (*version).into(),
            sum.requests.into(),
            sum.input_tokens.into(),
            sum.output_tokens.into(),
            sum.charged.into(),
        ]
    });
    // As far as a column goes.
    let grown = |name: &str| {
        format!(
            "{name} = CASE WHEN statement_usage.{name} > {most} - excluded.{name} THEN {most} \
             ELSE statement_usage.{name} + excluded.{name} END",
            most = i64::MAX
        )
    };
    let (input, output) = (grown("input_tokens"), grown("output_tokens"));
    let sql = |source: &Source| {
        format!(
            "INSERT INTO statement_usage (account_id, month, day, key_id, model, price_version, requests, input_tokens, \
             output_tokens, charged) {} ON CONFLICT (account_id, month, day, key_id, model, price_version) DO UPDATE SET \
             requests = statement_usage.requests + excluded.requests, {input}, {output}, \
             charged = statement_usage.charged + excluded.charged",
            source.rows(10)
        )
    };
    tx.run_over(sums.collect(), 10, sql).await?;
    let waiting = piece.waiting.iter().flat_map(|(request, one)| -> [Value; 5] {
        [id.into(), (*request).into(), one.came_at.into(), one.day.into(), one.charged.into()]
    });
    let sql = |source: &Source| {
        format!(
            "INSERT INTO statement_request (account_id, request_id, came_at, day, charged) {} \
             ON CONFLICT (account_id, request_id) DO UPDATE SET day = excluded.day, charged = excluded.charged",
            source.rows(5)
        )
    };
    tx.run_over(waiting.collect(), 5, sql).await?;
    let done = piece.done.iter().flat_map(|request| -> [Value; 2] { [id.into(), (*request).into()] });
    tx.run_each("DELETE FROM statement_request WHERE account_id = $1 AND request_id = $2", done.collect(), 2).await?;
    Ok(())
}
