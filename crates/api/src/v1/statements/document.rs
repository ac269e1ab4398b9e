//! Holds: a statement as it is told, in whatever form.

use std::collections::BTreeSet;

use batchin_domain::{AccountId, Balance, ledger::Movement};
use batchin_store::{Statement, StatementMovement, StatementUsage};
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::cents::Cents;

/// Nano-dollars as text, which no reader of JSON makes a float of.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, example = "-7600")]
pub(super) struct Nano(pub(super) i64);

impl Serialize for Nano {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Whose statement it is.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementAccount {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) email: String,
}

/// A movement of credit.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementEntry {
    pub(super) id: Uuid,
    /// `payment`, `refund`, `refund_failed`, `dispute`, `dispute_won`, `orphaned`, `grant` or `correction`.
    #[schema(example = "payment")]
    pub(super) kind: &'static str,
    /// `stripe`, `usdc` or `operator`.
    #[schema(example = "stripe")]
    pub(super) source: &'static str,
    /// Below 0 where it went away.
    pub(super) amount_cents: Cents,
    pub(super) amount_nano: Nano,
    #[schema(required = true)]
    pub(super) reference_id: Option<String>,
    /// The payment that it belongs to, as in the history.
    #[schema(required = true)]
    pub(super) payment_id: Option<Uuid>,
    /// The movement that it takes back.
    #[schema(required = true)]
    pub(super) reverses: Option<Uuid>,
    /// Why it went back, in a word.
    #[schema(required = true)]
    pub(super) reason: Option<String>,
    #[schema(required = true)]
    pub(super) receipt_url: Option<String>,
    #[schema(required = true)]
    pub(super) invoice_url: Option<String>,
    /// The invoice's number.
    #[schema(required = true)]
    pub(super) invoice: Option<String>,
    #[schema(format = DateTime)]
    pub(super) created_at: String,
}

/// What was charged on a day for one key, model and version of the prices.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementLine {
    /// UTC.
    #[schema(example = "2026-11-30")]
    pub(super) date: String,
    #[schema(required = true)]
    pub(super) key_id: Option<Uuid>,
    pub(super) model: String,
    pub(super) price_version: i64,
    /// Those whose last charge is of that day.
    pub(super) requests: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Charges less what was given back.
    pub(super) cost_cents: Cents,
    pub(super) cost_nano: Nano,
}

/// Sums of a statement. Opening balance and movements less usage are the closing balance.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementTotals {
    pub(super) movements_cents: Cents,
    pub(super) movements_nano: Nano,
    pub(super) usage_cents: Cents,
    pub(super) usage_nano: Nano,
    pub(super) requests: u64,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

/// A month's statement.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementDocument {
    #[schema(example = "statement")]
    pub(super) object: &'static str,
    #[schema(example = "2026-11")]
    pub(super) month: String,
    /// Whether it stays as it is.
    pub(super) closed: bool,
    #[schema(format = DateTime)]
    pub(super) from: String,
    /// Not included.
    #[schema(format = DateTime)]
    pub(super) to: String,
    #[schema(example = "usd")]
    pub(super) currency: &'static str,
    pub(super) account: StatementAccount,
    /// Name, address and tax ids of who paid last, as Stripe collected them.
    #[schema(value_type = Option<Object>, required = true)]
    pub(super) buyer: Option<Value>,
    pub(super) opening_balance_cents: Cents,
    pub(super) opening_balance_nano: Nano,
    pub(super) movements: Vec<StatementEntry>,
    pub(super) usage: Vec<StatementLine>,
    pub(super) totals: StatementTotals,
    pub(super) closing_balance_cents: Cents,
    pub(super) closing_balance_nano: Nano,
    /// The price lists that were charged by.
    pub(super) price_versions: Vec<i64>,
}

impl StatementDocument {
    pub(super) fn new(account: AccountId, statement: Statement) -> Self {
        let Statement { month, holder, movements, usage } = statement;
        let sum = |nanos: &mut dyn Iterator<Item = i64>| Balance::from_nanos(nanos.fold(0, i64::saturating_add));
        let moved = sum(&mut movements.iter().map(|one| one.amount.nanos()));
        let used = sum(&mut usage.iter().map(|line| line.charged.nanos()));
        let count = |of: fn(&StatementUsage) -> u64| usage.iter().map(of).fold(0, u64::saturating_add);
        let versions: BTreeSet<i64> = usage.iter().map(|line| line.price_version.0).collect();
        Self {
            object: "statement",
            month: month.month.to_string(),
            closed: month.closed,
            from: month.month.start().to_string(),
            to: month.month.next().start().to_string(),
            currency: "usd",
            account: StatementAccount { id: account.uuid(), name: holder.name, email: holder.email },
            buyer: holder.buyer.and_then(|buyer| serde_json::from_str(&buyer).ok()),
            opening_balance_cents: month.opening.into(),
            opening_balance_nano: Nano(month.opening.nanos()),
            totals: StatementTotals {
                movements_cents: moved.into(),
                movements_nano: Nano(moved.nanos()),
                usage_cents: used.into(),
                usage_nano: Nano(used.nanos()),
                requests: count(|line| line.requests),
                input_tokens: count(|line| line.input_tokens),
                output_tokens: count(|line| line.output_tokens),
            },
            movements: movements.into_iter().map(StatementEntry::from).collect(),
            usage: usage.into_iter().map(StatementLine::from).collect(),
            closing_balance_cents: month.closing.into(),
            closing_balance_nano: Nano(month.closing.nanos()),
            price_versions: versions.into_iter().collect(),
        }
    }
}

impl From<StatementMovement> for StatementEntry {
    fn from(one: StatementMovement) -> Self {
        let (kind, source) = match one.movement {
            Movement::Grant => ("grant", "operator"),
            Movement::Correction => ("correction", "operator"),
            Movement::Paid => ("payment", "stripe"),
            Movement::Refunded => ("refund", "stripe"),
            Movement::RefundFailed => ("refund_failed", "stripe"),
            Movement::Disputed => ("dispute", "stripe"),
            Movement::DisputeWon => ("dispute_won", "stripe"),
            Movement::Deposited => ("payment", "usdc"),
            Movement::Orphaned => ("orphaned", "usdc"),
            // None of them is a movement of credit.
            Movement::Charge | Movement::GiveBack | Movement::Late => ("usage", "operator"),
        };
        Self {
            id: one.id.uuid(),
            kind,
            source,
            amount_cents: one.amount.into(),
            amount_nano: Nano(one.amount.nanos()),
            reference_id: one.reference,
            payment_id: one.topup.map(batchin_domain::TopupId::uuid),
            reverses: one.reverses.map(batchin_domain::TransferId::uuid),
            // What an operator wrote is theirs.
            reason: one.reason.filter(|_| one.topup.is_some()),
            receipt_url: one.links.receipt_url,
            invoice_url: one.links.invoice_url,
            invoice: one.links.invoice,
            created_at: one.created_at.to_string(),
        }
    }
}

impl From<StatementUsage> for StatementLine {
    fn from(line: StatementUsage) -> Self {
        let at = line.day.to_string();
        Self {
            date: at.split_once('T').map_or(at.as_str(), |(date, _)| date).to_owned(),
            key_id: line.key.map(batchin_domain::KeyId::uuid),
            model: line.model,
            price_version: line.price_version.0,
            requests: line.requests,
            input_tokens: line.input_tokens,
            output_tokens: line.output_tokens,
            cost_cents: line.charged.into(),
            cost_nano: Nano(line.charged.nanos()),
        }
    }
}
