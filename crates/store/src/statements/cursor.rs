//! Holds: how far an account's movements are added up.

use batchin_db::{Row, Snapshot, Value, WriteTx};
use batchin_domain::{AccountId, Month, Timestamp};

use super::of_account;
use crate::StoreError;

/// How far an account's movements are added up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The last one that is.
    pub(super) seq: i64,
    /// The month that is open.
    pub(super) month: Month,
    /// Nano-dollars after it.
    pub(super) balance: i64,
    /// Grows with each change.
    pub(super) version: i64,
}

pub(super) const CURSOR: &str = "SELECT seq, month, balance, version FROM statement_cursor WHERE account_id = $1";

impl Cursor {
    pub(super) fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.get("seq")?,
            month: Month::from_index(row.get("month")?),
            balance: row.get("balance")?,
            version: row.get("version")?,
        })
    }
}

pub(super) async fn cursor(view: &Snapshot, account: AccountId) -> Result<Option<Cursor>, StoreError> {
    view.all(CURSOR.to_owned(), of_account(account, [])).await?.first().map(Cursor::of).transpose()
}

/// Moves the cursor on, unless somebody else has.
pub(super) async fn write_cursor(
    tx: &WriteTx,
    account: AccountId,
    is_there: bool,
    cursor: Cursor,
) -> Result<bool, StoreError> {
    let sql = match is_there {
        true => {
            "UPDATE statement_cursor SET seq = $2, month = $3, balance = $4, version = version + 1 \
             WHERE account_id = $1 AND version = $5"
        }
        false => {
            "INSERT INTO statement_cursor (account_id, seq, month, balance, version) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (account_id) DO NOTHING"
        }
    };
    let values: [Value; 4] =
        [cursor.seq.into(), cursor.month.index().into(), cursor.balance.into(), cursor.version.into()];
    Ok(tx.run(sql, of_account(account, values)).await? == 1)
}

/// The month that this is in, or the open one, whichever is later.
pub(super) fn current(cursor: Cursor, now: Timestamp) -> Month {
    cursor.month.max(now.month())
}
