//! Holds: what moved of an account's credit, for its owner.

use batchin_db::Row;
use batchin_domain::{
    AccountId, Balance, Timestamp, TopupId, TransferId,
    ledger::{Counters, Movement},
};
use uuid::Uuid;

use crate::{
    Balances, StoreError,
    money::booking::counters,
    stored::{stored, stored_amount},
};

/// A movement of credit in an account's history.
#[derive(Clone, Debug)]
pub struct Credited {
    /// Names the movement.
    pub id: TransferId,
    /// What it was.
    pub movement: Movement,
    /// How much; below zero when it went away.
    pub amount: Balance,
    /// What it is known by outside, where it is.
    pub reference: Option<String>,
    /// Why, where somebody said so.
    pub reason: Option<String>,
    /// The payment that it belongs to, where it belongs to one.
    pub topup: Option<TopupId>,
    /// The movement that it takes back, where it takes one back.
    pub reverses: Option<TransferId>,
    /// When.
    pub created_at: Timestamp,
}

/// What an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Credited minus charged.
    pub balance: Balance,
    /// Less was credited than is charged and set aside, since money went back; nothing is spent until there is enough again.
    pub frozen: bool,
}

impl Balances {
    /// What an account has; nothing where there is no account.
    pub async fn standing(&self, account: AccountId) -> Result<Standing, StoreError> {
        let sql = "SELECT posted_debit, posted_credit, pending_debit, frozen FROM account WHERE id = $1";
        let Some(row) = self.db.one(sql, [account.uuid().into()]).await? else { return Ok(Standing::default()) };
        let counters: Counters = counters(&row)?;
        // One that has enough again is let go when it next spends.
        Ok(Standing { balance: counters.balance(), frozen: row.get("frozen")? && !counters.is_sound() })
    }

    /// Movements of an account's credit, newest first.
    pub async fn credits(&self, account: AccountId, limit: u32) -> Result<Vec<Credited>, StoreError> {
        let sql = format!(
            "SELECT id, movement, amount, reference, reason, topup_id, reverses, created_at FROM transfer \
             WHERE account_id = $1 AND movement IN ({}) ORDER BY seq DESC LIMIT $2",
            codes_of_credit()
        );
        self.db.all(sql, [account.uuid().into(), i64::from(limit).into()]).await?.iter().map(credited).collect()
    }
}

/// The codes of all movements of credit, written out: only so the index of credits, few among many charges, is found.
pub(crate) fn codes_of_credit() -> String {
    let codes: Vec<String> =
        Movement::ALL.iter().filter(|one| one.is_of_credit()).map(|one| one.code().to_string()).collect();
    codes.join(", ")
}

fn credited(row: &Row) -> Result<Credited, StoreError> {
    let movement: Movement = stored(row, "transfer", "movement")?;
    let amount = stored_amount(row, "transfer", "amount")?.nanos();
    let (topup, reverses): (Option<Uuid>, Option<Uuid>) = (row.get("topup_id")?, row.get("reverses")?);
    Ok(Credited {
        id: TransferId::new(row.get("id")?),
        movement,
        amount: Balance::from_nanos(if movement.credits() < 0 { amount.saturating_neg() } else { amount }),
        reference: row.get("reference")?,
        reason: row.get("reason")?,
        topup: topup.map(TopupId::new),
        reverses: reverses.map(TransferId::new),
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}
