//! Holds: payments on chains as they stand, and what of them could be credited.

use std::collections::BTreeSet;

use batchin_db::{Db, Row, WriteTx, exactly};
use batchin_domain::{AccountId, Amount, DepositStatus, Timestamp, TopupId};
use uuid::Uuid;

use crate::{
    StoreError,
    money::booking::{BookError, lock_account},
    stored::{stored, stored_amount, to_i64, unsigned},
};

pub(super) const DEPOSIT: &str = "deposit";
/// Fresh payments of one look at the database.
const FRESH: usize = 500;
/// Payments that were held, of one account, that are credited with a fresh one at most. Nobody bounds how many there are of
/// next to nothing, and the largest make up a credit soonest.
const HELD: i64 = 500;

/// Payments on chains. Held by who watches them, and by who shows them.
#[derive(Clone)]
pub struct Deposits {
    pub(crate) db: Db,
}

/// How far a chain was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainProgress {
    /// Grows with every scan that is written.
    pub version: i64,
    /// What the next scan begins with.
    pub state: String,
    /// The newest block whose payments were read.
    pub read_to: u64,
    /// The newest of them that the chain calls safe.
    pub safe: Option<u64>,
    /// The newest of them that the chain calls finalized.
    pub finalized: Option<u64>,
    /// When that was.
    pub updated_at: Timestamp,
}

/// A payment that a scan saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDeposit {
    /// Its name: the same in whichever block its transaction is.
    pub name: String,
    /// Names its row, if there is none yet.
    pub id: Uuid,
    /// Whose address it went to.
    pub account: AccountId,
    /// Whether its token is credited.
    pub supported: bool,
    /// Who paid.
    pub payer: String,
    /// How much, in the token's smallest unit.
    pub base_units: u128,
    /// What it is worth; zero where its token is not credited.
    pub amount: Amount,
    /// Its block's number.
    pub block_number: u64,
    /// Its block's hash.
    pub block_hash: String,
    /// Its place in the block.
    pub log_index: u64,
}

/// A payment on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositRow {
    /// Names it for its owner.
    pub id: Uuid,
    /// The chain.
    pub chain_id: u64,
    /// As it was seen, its account among it.
    pub seen: SeenDeposit,
    /// Where it stands.
    pub status: DepositStatus,
    /// How often it was credited; more than once only where its block went and it came again.
    pub credits: u64,
    /// The payment that it was credited with.
    pub topup: Option<TopupId>,
    /// When it was seen first.
    pub seen_at: Timestamp,
    /// When it was credited.
    pub credited_at: Option<Timestamp>,
}

/// Why a scan or credits were not written.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// Another scan was written meanwhile, or a payment has changed.
    #[error("the chain was read anew in the meantime")]
    Stale,
    /// An account cannot count that much.
    #[error("the account would hold more than can be counted")]
    Overflow,
    /// The store failed.
    #[error("the chain's payments could not be stored")]
    Store(#[from] StoreError),
}

impl From<BookError> for DepositError {
    fn from(cause: BookError) -> Self {
        match cause {
            BookError::Overflow => Self::Overflow,
            BookError::Store(cause) => Self::Store(cause),
        }
    }
}

pub(super) const COLUMNS: &str = "id, chain_id, name, account_id, status, supported, payer, base_units, amount, block_number, \
     block_hash, log_index, credits, topup_id, seen_at, credited_at";

impl Deposits {
    /// How far a chain was read; `None`: not at all.
    pub async fn chain_progress(&self, chain_id: u64) -> Result<Option<ChainProgress>, StoreError> {
        let sql = "SELECT version, state, read_to, safe, finalized, updated_at FROM chain_state WHERE chain_id = $1";
        let row = self.db.one(sql, [to_i64(chain_id).into()]).await?;
        row.as_ref().map(progress).transpose()
    }

    /// Payments of a chain that are neither credited nor held, up to a block, in the order of their accounts, behind `after`
    /// (an account and one of its payments): one page, with all of each account, unless one account has more than a page.
    pub async fn fresh_deposits(
        &self,
        (chain_id, up_to): (u64, u64),
        (account, id): (AccountId, Uuid),
    ) -> Result<Vec<DepositRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM deposit WHERE chain_id = $1 AND status = 0 AND block_number <= $2 \
             AND (account_id, id) > ($3, $4) ORDER BY account_id, id LIMIT {FRESH}"
        );
        let values = [to_i64(chain_id).into(), to_i64(up_to).into(), account.uuid().into(), id.into()];
        let mut rows: Vec<DepositRow> =
            self.db.all(sql, values).await?.iter().map(deposit).collect::<Result<_, _>>()?;
        let last = rows.last().map(|row| row.seen.account).filter(|_| rows.len() == FRESH);
        let whole = rows.iter().take_while(|row| Some(row.seen.account) != last).count();
        if whole > 0 {
            rows.truncate(whole);
        }
        Ok(rows)
    }

    /// Payments of an account on a chain that are held, up to a block: the largest of them.
    pub async fn held_deposits(
        &self,
        (chain_id, up_to): (u64, u64),
        account: AccountId,
    ) -> Result<Vec<DepositRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM deposit WHERE chain_id = $1 AND status = 1 AND account_id = $2 AND block_number <= $3 \
             ORDER BY amount DESC, id DESC LIMIT {HELD}"
        );
        let values = [to_i64(chain_id).into(), account.uuid().into(), to_i64(up_to).into()];
        self.db.all(sql, values).await?.iter().map(deposit).collect()
    }

    /// Payments of an account on all chains, newest first.
    pub async fn deposits(&self, account: AccountId, limit: u32) -> Result<Vec<DepositRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM deposit WHERE account_id = $1 ORDER BY seen_at DESC, id DESC LIMIT $2");
        let rows = self.db.all(sql, [account.uuid().into(), i64::from(limit).into()]).await?;
        rows.iter().map(deposit).collect()
    }

    /// Payments of all accounts that are in their chains, from a row on, in the order of their ids.
    pub async fn all_deposits(&self, after: Uuid, limit: u32) -> Result<Vec<DepositRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM deposit WHERE id > $1 AND status <> {} ORDER BY id LIMIT $2",
            DepositStatus::Orphaned.code()
        );
        self.db.all(sql, [after.into(), i64::from(limit).into()]).await?.iter().map(deposit).collect()
    }
}

/// Locks the chain at this version.
pub(super) async fn lock_chain(tx: &WriteTx, chain_id: u64, version: i64) -> Result<(), DepositError> {
    let sql = format!("SELECT version FROM chain_state WHERE chain_id = $1{}", tx.dialect.for_update());
    let row = tx.one(sql, [to_i64(chain_id).into()]).await?;
    let found = row.map_or(Ok(0), |row| row.get::<i64>("version"))?;
    if found == version { Ok(()) } else { Err(DepositError::Stale) }
}

/// What the n-th credit of a payment is known by: a payment whose block went and that came again is credited anew.
pub(super) fn credit_reference(name: &str, nth: u64) -> String {
    if nth <= 1 { format!("usdc:{name}") } else { format!("usdc:{name}#{nth}") }
}

pub(super) async fn put_status(tx: &WriteTx, id: Uuid, status: DepositStatus) -> Result<(), StoreError> {
    let sql = "UPDATE deposit SET status = $2 WHERE id = $1";
    exactly(tx.run(sql, [id.into(), status.code().into()]).await?, 1, DEPOSIT)
}

/// Locks these accounts, in the order in which all are locked.
pub(super) async fn lock_accounts(tx: &WriteTx, accounts: impl Iterator<Item = AccountId>) -> Result<(), DepositError> {
    let accounts: BTreeSet<AccountId> = accounts.collect();
    for account in accounts {
        lock_account(tx, account).await?.ok_or(missing_account())?;
    }
    Ok(())
}

pub(super) const fn missing_account() -> StoreError {
    StoreError::RowCount { table: "account", expected: 1, touched: 0 }
}

fn progress(row: &Row) -> Result<ChainProgress, StoreError> {
    let number = |column: &'static str| {
        let found: Option<i64> = row.get(column)?;
        let corrupt = StoreError::Corrupt { table: "chain_state", column };
        found.map(|number| u64::try_from(number).map_err(|_| corrupt)).transpose()
    };
    Ok(ChainProgress {
        version: row.get("version")?,
        state: row.get("state")?,
        read_to: unsigned(row, "chain_state", "read_to")?,
        safe: number("safe")?,
        finalized: number("finalized")?,
        updated_at: Timestamp::from_micros(row.get("updated_at")?),
    })
}

pub(super) fn deposit(row: &Row) -> Result<DepositRow, StoreError> {
    let units: String = row.get("base_units")?;
    let (topup, credited): (Option<Uuid>, Option<i64>) = (row.get("topup_id")?, row.get("credited_at")?);
    let id: Uuid = row.get("id")?;
    Ok(DepositRow {
        id,
        chain_id: unsigned(row, DEPOSIT, "chain_id")?,
        seen: SeenDeposit {
            name: row.get("name")?,
            id,
            account: AccountId::new(row.get("account_id")?),
            supported: row.get("supported")?,
            payer: row.get("payer")?,
            base_units: units.parse().map_err(|_| StoreError::Corrupt { table: DEPOSIT, column: "base_units" })?,
            amount: stored_amount(row, DEPOSIT, "amount")?,
            block_number: unsigned(row, DEPOSIT, "block_number")?,
            block_hash: row.get("block_hash")?,
            log_index: unsigned(row, DEPOSIT, "log_index")?,
        },
        status: stored(row, DEPOSIT, "status")?,
        credits: unsigned(row, DEPOSIT, "credits")?,
        topup: topup.map(TopupId::new),
        seen_at: Timestamp::from_micros(row.get("seen_at")?),
        credited_at: credited.map(Timestamp::from_micros),
    })
}
