//! Holds: crediting payments on chains.
//!
//! Credits are fenced by the version of their chain's last scan: nothing is credited by what was known before.

use batchin_db::{Rerun, WriteTx, exactly, retried};
use batchin_domain::{
    AccountId, Amount, DepositStatus, Timestamp, TopupId, TopupSource, TopupStatus, TransferId, ledger::Movement,
    webhook::EventKind,
};
use uuid::Uuid;

use crate::{
    Deposits, alerts,
    money::{
        booking::{Booking, lock_account},
        deposits::{
            DepositError, DepositRow, credit_reference, lock_accounts, lock_chain, missing_account, put_status,
        },
    },
    stored::to_i64,
    waking::{WAITS_FOR_BALANCE, wake},
};

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

impl Deposits {
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
}

async fn credit_in(
    tx: &WriteTx,
    (chain_id, version): (u64, i64),
    (credits, held): (&[DepositCredit], &[Uuid]),
    now: Timestamp,
) -> Result<(), DepositError> {
    lock_chain(tx, chain_id, version).await?;
    for id in held {
        put_status(tx, *id, DepositStatus::Held).await?;
    }
    for credit in credits {
        open_credit(tx, credit, now).await?;
    }
    // Accounts are locked after all payments.
    lock_accounts(tx, credits.iter().map(|credit| credit.account)).await?;
    for credit in credits {
        book_credit(tx, credit, now).await?;
    }
    Ok(())
}

async fn open_credit(tx: &WriteTx, credit: &DepositCredit, now: Timestamp) -> Result<(), DepositError> {
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
    Ok(exactly(tx.run(sql, values).await?, 1, "topup")?)
}

async fn book_credit(tx: &WriteTx, credit: &DepositCredit, now: Timestamp) -> Result<(), DepositError> {
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
