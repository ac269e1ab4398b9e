//! Holds: what an account's money did, month by month, so that a month that is closed stays as it is.
//!
//! Where a movement stands is decided by its place in the account's order (`transfer.seq`), which is the order in which
//! movements were committed, and not by its time alone: a node takes a charge's time before its group commit, so that one
//! of 23:59:59 may be committed after another node's of 00:00:01, or minutes later where the database was away. An
//! account's movements are read in that order, and a movement stands in the month of its time, or in that of the one
//! before it where that is later. A month ends before the first movement of a later one, or with the last one that there
//! is an hour after its end. Either is written down once, and what is committed after it stands in the next month, on its
//! first day. Both are parts of the ledger that only grows, so that no node needs to be asked and no clock believed.
//!
//! Charges are many and statements are read seldom, so the group commit knows nothing of statements. What was charged is
//! added up behind it, in pieces, into sums per day, key, model and version of the prices; a reader adds what is missing.

mod closing;
mod cursor;
mod fold;
mod piece;
mod read;
mod requests;

use batchin_db::{Db, Value};
use batchin_domain::{
    AccountId, Amount, Balance, KeyId, Month, PriceVersion, Timestamp, TopupId, TransferId, ledger::Movement,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Statements of accounts. Held by who shows them, and by what adds up behind the ledger.
#[derive(Clone)]
pub struct Statements {
    pub(crate) db: Db,
}

/// A month of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementMonth {
    /// Which.
    pub month: Month,
    /// What there was before it.
    pub opening: Balance,
    /// What there was after it, or is by now.
    pub closing: Balance,
    /// Whether it stays as it is.
    pub closed: bool,
}

/// Whose statement it is, as known when the month was closed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatementHolder {
    /// The user's name.
    pub name: String,
    /// The user's email address.
    pub email: String,
    /// Name, address and tax ids of who paid last, as Stripe collected them, in JSON.
    pub buyer: Option<String>,
}

/// Papers of a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentLinks {
    /// Stripe's receipt.
    pub receipt_url: Option<String>,
    /// Stripe's invoice.
    pub invoice_url: Option<String>,
    /// The invoice's number.
    pub invoice: Option<String>,
}

/// A movement of credit.
#[derive(Clone, Debug)]
pub struct StatementMovement {
    /// Names it.
    pub id: TransferId,
    /// What it was.
    pub movement: Movement,
    /// How much; below zero where it went away.
    pub amount: Balance,
    /// What it is known by outside.
    pub reference: Option<String>,
    /// Why, where somebody said so.
    pub reason: Option<String>,
    /// The payment that it belongs to.
    pub topup: Option<TopupId>,
    /// The movement that it takes back.
    pub reverses: Option<TransferId>,
    /// The papers of its payment.
    pub links: PaymentLinks,
    /// When.
    pub created_at: Timestamp,
}

/// What was charged on a day for one key, model and version of the prices.
#[derive(Clone, Debug)]
pub struct StatementUsage {
    /// When the day begins, UTC.
    pub day: Timestamp,
    /// The key; `None` for what came without one.
    pub key: Option<KeyId>,
    /// The model as asked for.
    pub model: String,
    /// The price list.
    pub price_version: PriceVersion,
    /// Requests whose last charge is of that day.
    pub requests: u64,
    /// Their input tokens.
    pub input_tokens: u64,
    /// Their output tokens.
    pub output_tokens: u64,
    /// What was charged that day minus what was given back; below zero where more was given back.
    pub charged: Balance,
}

/// A month's statement. Opening and movements minus usage are closing.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The month and its balances.
    pub month: StatementMonth,
    /// Whose.
    pub holder: StatementHolder,
    /// Movements of credit, oldest first.
    pub movements: Vec<StatementMovement>,
    /// What was charged, by day, key, model and version.
    pub usage: Vec<StatementUsage>,
}

/// The codes of movements of credit, written out, as only so the index of credits, few among many charges, is found.
fn codes_of_credit() -> String {
    let codes = Movement::ALL.iter().filter(|one| one.is_of_credit()).map(|one| one.code().to_string());
    codes.collect::<Vec<_>>().join(", ")
}

/// What a movement does to a balance, in nano-dollars.
fn signed(movement: Movement, amount: Amount) -> i64 {
    match movement {
        Movement::Charge => amount.nanos().saturating_neg(),
        // Without a place in the account's order, and never the customer's.
        Movement::Late => 0,
        other => amount.nanos().saturating_mul(other.credits()),
    }
}

fn of_account(account: AccountId, rest: impl IntoIterator<Item = Value>) -> Vec<Value> {
    std::iter::once(Value::from(account.uuid())).chain(rest).collect()
}

/// The key of charges that came without one.
const NO_KEY: Uuid = Uuid::nil();
