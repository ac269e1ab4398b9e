//! Holds: what a scan of a chain brought, and where an operator has the next one begin.
//!
//! Payments are written together with how far the scan came, fenced by the version of that. What stood in a block that has gone is
//! taken back there.

use batchin_db::{Rerun, WriteTx, exactly, retried};
use batchin_domain::{DepositStatus, Timestamp, TopupId, TransferId, ledger::Movement, webhook::EventKind};
use uuid::Uuid;

use crate::{
    Deposits, StoreError, alerts,
    money::{
        admin_log::{LogEntry, append},
        booking::{Booking, lock_account},
        deposits::{
            COLUMNS, ChainProgress, DEPOSIT, DepositError, DepositRow, SeenDeposit, credit_reference, deposit,
            lock_accounts, lock_chain, missing_account, put_status,
        },
    },
    stored::{named, to_i64},
};

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

/// Where an operator has a chain read from.
#[derive(Clone, Debug)]
pub struct ChainRestart {
    /// Which chain.
    pub chain_id: u64,
    /// The version at which it stands; 0 where it was never read.
    pub version: i64,
    /// What the next scan begins with.
    pub state: String,
    /// The block before the first that is read.
    pub read_to: u64,
    /// Names the act.
    pub id: Uuid,
    /// Who does it: an admin's email, or `command line`.
    pub actor: String,
    /// What it is, and why.
    pub reason: String,
    /// When.
    pub now: Timestamp,
}

/// What a restart did to payments of the blocks that are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartedPayments {
    /// Those that were not credited: they count no more until they are seen again.
    pub set_aside: u64,
    /// Those that were: nothing was done about them.
    pub credited: u64,
}

impl Deposits {
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

    /// Has a chain read anew from a block on. Of what was credited nothing is changed.
    pub async fn restart_chain(&self, restart: &ChainRestart) -> Result<RestartedPayments, DepositError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            match restart_in(&tx, restart).await {
                Ok(done) => tx.commit().await.map(|()| Ok(done)),
                Err(DepositError::Store(cause)) => Err(cause),
                Err(other) => Ok(Err(other)),
            }
        })
        .await?
    }
}

/// Puts how far a chain was read in place of what is there at a version; returns the next version.
async fn put_progress(
    tx: &WriteTx,
    (chain_id, version): (u64, i64),
    progress: &ChainProgress,
) -> Result<i64, DepositError> {
    lock_chain(tx, chain_id, version).await?;
    let next = version.saturating_add(1);
    let values = [
        to_i64(chain_id).into(),
        next.into(),
        progress.state.as_str().into(),
        to_i64(progress.read_to).into(),
        progress.safe.map(to_i64).into(),
        progress.finalized.map(to_i64).into(),
        progress.updated_at.micros().into(),
    ];
    let written = if version == 0 {
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
    Ok(next)
}

async fn scan_in(tx: &WriteTx, scan: &ChainScan) -> Result<(i64, usize), DepositError> {
    let progress = &scan.progress;
    let next = put_progress(tx, (scan.chain_id, scan.version), progress).await?;
    let mut gone = Vec::new();
    for event in &scan.events {
        match event {
            ChainEvent::Orphaned { number, hash } => {
                gone.extend(orphan(tx, (scan.chain_id, *number, hash)).await?);
            }
            ChainEvent::Seen(seen) => see(tx, scan.chain_id, seen, progress.updated_at).await?,
        }
    }
    // Accounts are locked after all payments, whichever blocks these stood in.
    let mut credited: Vec<_> = gone.into_iter().filter(|row| row.status == DepositStatus::Credited).collect();
    credited.sort_unstable_by_key(|row| (row.seen.account, row.id));
    lock_accounts(tx, credited.iter().map(|row| row.seen.account)).await?;
    for row in &credited {
        take_back(tx, row, progress.updated_at).await?;
    }
    Ok((next, credited.len()))
}

/// What stood in a block that has gone counts no more: as it was until now.
async fn orphan(tx: &WriteTx, (chain_id, number, hash): (u64, u64, &str)) -> Result<Vec<DepositRow>, DepositError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM deposit WHERE chain_id = $1 AND block_number = $2 AND block_hash = $3 \
         AND status <> {} ORDER BY id",
        DepositStatus::Orphaned.code()
    );
    let gone = tx.all(sql, [to_i64(chain_id).into(), to_i64(number).into(), hash.into()]).await?;
    let gone: Vec<DepositRow> = gone.iter().map(deposit).collect::<Result<_, _>>()?;
    for row in &gone {
        put_status(tx, row.id, DepositStatus::Orphaned).await?;
    }
    Ok(gone)
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

async fn restart_in(tx: &WriteTx, restart: &ChainRestart) -> Result<RestartedPayments, DepositError> {
    let ChainRestart { chain_id, version, read_to, now, .. } = *restart;
    let progress =
        ChainProgress { version, state: restart.state.clone(), read_to, safe: None, finalized: None, updated_at: now };
    put_progress(tx, (chain_id, version), &progress).await?;
    // The blocks that they were seen in are not remembered any more, so nothing would tell that one of these has gone.
    let (orphaned, credited) = (DepositStatus::Orphaned.code(), DepositStatus::Credited.code());
    let sql = format!(
        "UPDATE deposit SET status = {orphaned} WHERE chain_id = $1 AND block_number > $2 \
         AND status NOT IN ({orphaned}, {credited})"
    );
    let set_aside = tx.run(sql, [to_i64(chain_id).into(), to_i64(read_to).into()]).await?;
    let sql =
        format!("SELECT count(*) AS n FROM deposit WHERE chain_id = $1 AND block_number > $2 AND status = {credited}");
    let row = tx.one(sql, [to_i64(chain_id).into(), to_i64(read_to).into()]).await?;
    let credited: i64 = row.map_or(Ok(0), |row| row.get("n"))?;
    let entry = LogEntry {
        actor: &restart.actor,
        action: "chain.restarted",
        account: None,
        subject: Some(restart.id),
        amount: None,
        reason: &restart.reason,
        now,
    };
    append(tx, &entry).await?;
    Ok(RestartedPayments { set_aside, credited: credited.unsigned_abs() })
}
