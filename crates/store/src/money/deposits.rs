//! Holds: payments on chains, from first sight to the credit, and back where their block goes.
//!
//! What a scan of a chain brought is written together with how far it came, fenced by the version of that. Credits are fenced by
//! it too: nothing is credited by what was known before the last scan.

use batchin_db::{Db, Rerun, Row, WriteTx, exactly, retried};
use batchin_domain::{
    AccountId, Amount, DepositStatus, Timestamp, TopupId, TopupSource, TopupStatus, TransferId, ledger::Movement,
    webhook::EventKind,
};
use uuid::Uuid;

use crate::{
    StoreError, alerts,
    money::booking::{BookError, Booking, lock_account},
    stored::{named, stored, stored_amount, to_i64, unsigned},
    waking::{WAITS_FOR_BALANCE, wake},
};

const DEPOSIT: &str = "deposit";

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

/// Something that a scan found, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// A block has gone.
    Orphaned {
        /// Its number.
        number: u64,
        /// Its hash.
        hash: String,
    },
    /// A payment is there.
    Seen(Box<SeenDeposit>),
}

/// What a scan brought.
#[derive(Clone, Debug)]
pub struct ChainScan {
    /// Which chain.
    pub chain_id: u64,
    /// The version that it began with; 0 for the first of all.
    pub version: i64,
    /// How far it came; its version is ignored.
    pub progress: ChainProgress,
    /// What it found.
    pub events: Vec<ChainEvent>,
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

/// Payments of one account that are credited together.
#[derive(Clone, Debug)]
pub struct DepositCredit {
    /// Names the payment that they make together.
    pub topup: TopupId,
    /// Whose.
    pub account: AccountId,
    /// Which, each with the name of its movement.
    pub deposits: Vec<(DepositRow, TransferId)>,
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

const COLUMNS: &str = "id, chain_id, name, account_id, status, supported, payer, base_units, amount, block_number, \
     block_hash, log_index, credits, topup_id, seen_at, credited_at";

impl Deposits {
    /// How far a chain was read; `None`: not at all.
    pub async fn chain_progress(&self, chain_id: u64) -> Result<Option<ChainProgress>, StoreError> {
        let sql = "SELECT version, state, read_to, safe, finalized, updated_at FROM chain_state WHERE chain_id = $1";
        let row = self.db.one(sql, [to_i64(chain_id).into()]).await?;
        row.as_ref().map(progress).transpose()
    }

    /// Writes what a scan brought; returns the version that the next one begins with, and how many credits were taken back.
    pub async fn write_scan(&self, scan: &ChainScan) -> Result<(i64, usize), DepositError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            match scan_in(&tx, scan).await {
                Ok(written) => tx.commit().await.map(|()| Ok(written)),
                Err(DepositError::Store(cause)) => Err(cause),
                Err(other) => Ok(Err(other)),
            }
        })
        .await?
    }

    /// Payments of a chain that are not credited yet and could be, the oldest block first, up to one.
    pub async fn open_deposits(&self, chain_id: u64, up_to: u64) -> Result<Vec<DepositRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM deposit WHERE chain_id = $1 AND status IN (0, 1) AND block_number <= $2 \
             ORDER BY block_number, id"
        );
        let rows = self.db.all(sql, [to_i64(chain_id).into(), to_i64(up_to).into()]).await?;
        rows.iter().map(deposit).collect()
    }

    /// Credits payments, all of them or none, and sets others aside that are too little alone. The chain must stand at
    /// `version`.
    pub async fn credit_deposits(
        &self,
        (chain_id, version): (u64, i64),
        credits: &[DepositCredit],
        held: &[Uuid],
        now: Timestamp,
    ) -> Result<(), DepositError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            match credit_in(&tx, (chain_id, version), (credits, held), now).await {
                Ok(()) => tx.commit().await.map(Ok),
                Err(DepositError::Store(cause)) => Err(cause),
                Err(other) => Ok(Err(other)),
            }
        })
        .await??;
        for credit in credits {
            // The credit stands. Where waking fails, who waits is asked again by and by.
            let _ = wake(&self.db, credit.account, WAITS_FOR_BALANCE, None).await;
        }
        Ok(())
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
async fn lock_chain(tx: &WriteTx, chain_id: u64, version: i64) -> Result<(), DepositError> {
    let sql = format!("SELECT version FROM chain_state WHERE chain_id = $1{}", tx.dialect.for_update());
    let row = tx.one(sql, [to_i64(chain_id).into()]).await?;
    let found = row.map_or(Ok(0), |row| row.get::<i64>("version"))?;
    if found == version { Ok(()) } else { Err(DepositError::Stale) }
}

async fn scan_in(tx: &WriteTx, scan: &ChainScan) -> Result<(i64, usize), DepositError> {
    lock_chain(tx, scan.chain_id, scan.version).await?;
    let (next, progress) = (scan.version.saturating_add(1), &scan.progress);
    let values = [
        to_i64(scan.chain_id).into(),
        next.into(),
        progress.state.as_str().into(),
        to_i64(progress.read_to).into(),
        progress.safe.map(to_i64).into(),
        progress.finalized.map(to_i64).into(),
        progress.updated_at.micros().into(),
    ];
    let written = if scan.version == 0 {
        // Two that begin at once: the later finds the earlier's row.
        let sql = "INSERT INTO chain_state (chain_id, version, state, read_to, safe, finalized, updated_at) \
                   VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (chain_id) DO NOTHING";
        tx.run(sql, values).await?
    } else {
        let sql = "UPDATE chain_state SET version = $2, state = $3, read_to = $4, safe = $5, finalized = $6, \
                   updated_at = $7 WHERE chain_id = $1";
        tx.run(sql, values).await?
    };
    if written != 1 {
        return Err(DepositError::Stale);
    }
    let mut taken_back = 0;
    for event in &scan.events {
        match event {
            ChainEvent::Orphaned { number, hash } => {
                taken_back += orphan(tx, (scan.chain_id, *number, hash), progress.updated_at).await?;
            }
            ChainEvent::Seen(seen) => see(tx, scan.chain_id, seen, progress.updated_at).await?,
        }
    }
    Ok((next, taken_back))
}

/// What stood in a block that has gone counts no more; what was credited for it is taken back.
async fn orphan(
    tx: &WriteTx,
    (chain_id, number, hash): (u64, u64, &str),
    now: Timestamp,
) -> Result<usize, DepositError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM deposit WHERE chain_id = $1 AND block_number = $2 AND block_hash = $3 \
         AND status <> {} ORDER BY account_id, id",
        DepositStatus::Orphaned.code()
    );
    let gone = tx.all(sql, [to_i64(chain_id).into(), to_i64(number).into(), hash.into()]).await?;
    let mut taken_back = 0;
    for row in gone.iter().map(deposit) {
        let row = row?;
        if row.status == DepositStatus::Credited {
            take_back(tx, &row, now).await?;
            taken_back += 1;
        }
        put_status(tx, row.id, DepositStatus::Orphaned).await?;
    }
    Ok(taken_back)
}

async fn take_back(tx: &WriteTx, row: &DepositRow, now: Timestamp) -> Result<(), DepositError> {
    let credit = credit_reference(&row.seen.name, row.credits);
    let reference = format!("{credit}:orphaned");
    // Follows from what it is, so that the scan that writes it may be run again.
    let id = TransferId::new(named(&[b"batchin orphaned", reference.as_bytes()]));
    let mut account = lock_account(tx, row.seen.account).await?.ok_or(missing_account())?;
    let credited = tx.one("SELECT id FROM transfer WHERE reference = $1", [credit.into()]).await?;
    let reverses = credited.map(|row| row.get("id")).transpose()?;
    let booking = Booking {
        id,
        movement: Movement::Orphaned,
        amount: row.seen.amount,
        reference: Some(&reference),
        reason: Some("the chain was reorganised"),
        actor: None,
        topup: row.topup.map(TopupId::uuid),
        reverses,
        now,
    };
    account.book(tx, &[booking]).await?;
    alerts::lowered(tx, account.id, account.standing(), now).await?;
    let alert =
        alerts::Alert { account: account.id, kind: EventKind::TopupReversed, subject: id.uuid(), occasion: None };
    Ok(alerts::tell(tx, &alert, now).await?)
}

async fn see(tx: &WriteTx, chain_id: u64, seen: &SeenDeposit, now: Timestamp) -> Result<(), StoreError> {
    let status = if seen.supported { DepositStatus::Confirming } else { DepositStatus::Unsupported };
    let orphaned = DepositStatus::Orphaned.code();
    // One that is there already stands in another block now, perhaps. What is credited stays so: the same scan has told of
    // its old block's end before, if that ended.
    let touched = tx
        .run(
            format!(
                "INSERT INTO deposit (id, chain_id, name, account_id, status, supported, payer, base_units, amount, \
                 block_number, block_hash, log_index, seen_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13) \
                 ON CONFLICT (name) DO UPDATE SET block_number = excluded.block_number, \
                 block_hash = excluded.block_hash, log_index = excluded.log_index, \
                 status = CASE WHEN deposit.status = {orphaned} THEN excluded.status ELSE deposit.status END, \
                 payer = CASE WHEN deposit.status = {orphaned} THEN excluded.payer ELSE deposit.payer END, \
                 base_units = CASE WHEN deposit.status = {orphaned} THEN excluded.base_units ELSE deposit.base_units END, \
                 amount = CASE WHEN deposit.status = {orphaned} THEN excluded.amount ELSE deposit.amount END"
            ),
            [
                seen.id.into(),
                to_i64(chain_id).into(),
                seen.name.as_str().into(),
                seen.account.uuid().into(),
                status.code().into(),
                seen.supported.into(),
                seen.payer.as_str().into(),
                seen.base_units.to_string().into(),
                seen.amount.nanos().into(),
                to_i64(seen.block_number).into(),
                seen.block_hash.as_str().into(),
                to_i64(seen.log_index).into(),
                now.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, DEPOSIT)
}

async fn credit_in(
    tx: &WriteTx,
    (chain_id, version): (u64, i64),
    (credits, held): (&[DepositCredit], &[Uuid]),
    now: Timestamp,
) -> Result<(), DepositError> {
    lock_chain(tx, chain_id, version).await?;
    for credit in credits {
        credit_one(tx, credit, now).await?;
    }
    for id in held {
        put_status(tx, *id, DepositStatus::Held).await?;
    }
    Ok(())
}

async fn credit_one(tx: &WriteTx, credit: &DepositCredit, now: Timestamp) -> Result<(), DepositError> {
    let total = credit.deposits.iter().try_fold(Amount::ZERO, |sum, (row, _)| sum.checked_add(row.seen.amount));
    let total = total.ok_or(DepositError::Overflow)?;
    for (row, _) in &credit.deposits {
        // Where it stands it must still stand.
        let sql = "UPDATE deposit SET status = $2, credits = credits + 1, topup_id = $3, credited_at = $4 \
                   WHERE id = $1 AND status IN (0, 1) AND block_hash = $5 AND credits = $6";
        let values = [
            row.id.into(),
            DepositStatus::Credited.code().into(),
            credit.topup.uuid().into(),
            now.micros().into(),
            row.seen.block_hash.as_str().into(),
            to_i64(row.credits).into(),
        ];
        if tx.run(sql, values).await? != 1 {
            return Err(DepositError::Stale);
        }
    }
    let sql = "INSERT INTO topup (id, account_id, source, status, amount, created_at, completed_at, payment) \
               VALUES ($1,$2,$3,$4,$5,$6,$6,$7)";
    let payment =
        credit.deposits.first().map(|(row, _)| credit_reference(&row.seen.name, row.credits.saturating_add(1)));
    let values = [
        credit.topup.uuid().into(),
        credit.account.uuid().into(),
        TopupSource::Usdc.code().into(),
        TopupStatus::Completed.code().into(),
        total.nanos().into(),
        now.micros().into(),
        payment.into(),
    ];
    exactly(tx.run(sql, values).await?, 1, "topup")?;
    let mut account = lock_account(tx, credit.account).await?.ok_or(missing_account())?;
    let references: Vec<String> = credit
        .deposits
        .iter()
        .map(|(row, _)| credit_reference(&row.seen.name, row.credits.saturating_add(1)))
        .collect();
    let bookings: Vec<_> = credit
        .deposits
        .iter()
        .zip(&references)
        .map(|((row, id), reference)| Booking {
            id: *id,
            movement: Movement::Deposited,
            amount: row.seen.amount,
            reference: Some(reference),
            reason: None,
            actor: None,
            topup: Some(credit.topup.uuid()),
            reverses: None,
            now,
        })
        .collect();
    account.book(tx, &bookings).await?;
    alerts::credited(tx, account.id).await?;
    let (kind, subject) = (EventKind::TopupSucceeded, credit.topup.uuid());
    Ok(alerts::tell(tx, &alerts::Alert { account: account.id, kind, subject, occasion: None }, now).await?)
}

/// What the n-th credit of a payment is known by: a payment whose block went and that came again is credited anew.
fn credit_reference(name: &str, nth: u64) -> String {
    if nth <= 1 { format!("usdc:{name}") } else { format!("usdc:{name}#{nth}") }
}

async fn put_status(tx: &WriteTx, id: Uuid, status: DepositStatus) -> Result<(), StoreError> {
    let sql = "UPDATE deposit SET status = $2 WHERE id = $1";
    exactly(tx.run(sql, [id.into(), status.code().into()]).await?, 1, DEPOSIT)
}

const fn missing_account() -> StoreError {
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

fn deposit(row: &Row) -> Result<DepositRow, StoreError> {
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
