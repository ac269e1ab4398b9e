//! Holds: what was credited.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_billing::ShownDeposit;
use batchin_domain::{DepositStatus, Timestamp, TopupId, TopupSource, TopupStatus, ledger::Movement};
use batchin_store::{Credited, TopupRow};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{app::App, auth::AccountCaller, cents::Cents, error::ApiError, query::Parameters};

/// Most rows of one answer.
const MAX_ROWS: u32 = 500;

/// Money that came, is to come, or went back.
#[derive(Serialize, ToSchema)]
pub(crate) struct Topup {
    /// Of a payment, that of the payment; of anything else, that of the movement.
    id: Uuid,
    /// Below 0 where it went back. Of a payment that is not `completed`, what was asked for.
    amount_cents: Cents,
    /// `stripe`: paid by card. `usdc`: paid in USDC. `grant`: given by the operator. `correction`: taken back by them.
    #[schema(example = "stripe")]
    source: &'static str,
    /// `payment`, `refund`, `refund_failed`, `dispute`, `dispute_won`, `orphaned`, `grant` or `correction`.
    #[schema(example = "payment")]
    kind: &'static str,
    /// Its name outside, where it has one.
    #[schema(required = true)]
    reference_id: Option<String>,
    /// `pending`, `completed`, `failed` or `expired`. Only what is completed is in the balance.
    #[schema(example = "completed")]
    status: &'static str,
    /// The payment that it takes back from, or gives back to.
    #[schema(required = true)]
    payment_id: Option<Uuid>,
    /// Why it failed or went back, in a word.
    #[schema(required = true)]
    reason: Option<String>,
    /// Where a payment that is not paid yet can be paid.
    #[schema(required = true)]
    checkout_url: Option<String>,
    /// The receipt of a payment by card.
    #[schema(required = true)]
    receipt_url: Option<String>,
    /// The invoice of a payment by card.
    #[schema(required = true)]
    invoice_url: Option<String>,
    /// Of a payment on a chain that is not credited yet: blocks that have been read since, with its own.
    #[schema(required = true)]
    confirmations: Option<u64>,
    /// And how many it needs.
    #[schema(required = true)]
    required_confirmations: Option<u32>,
    #[schema(format = DateTime)]
    created_at: String,
    #[serde(skip)]
    at: Timestamp,
}

impl Topup {
    /// A movement of credit. A payment that came is told of by its own row.
    fn of_movement(credit: Credited) -> Option<Self> {
        let (source, kind) = match credit.movement {
            Movement::Grant => ("grant", "grant"),
            Movement::Correction => ("correction", "correction"),
            Movement::Refunded => ("stripe", "refund"),
            Movement::RefundFailed => ("stripe", "refund_failed"),
            Movement::Disputed => ("stripe", "dispute"),
            Movement::DisputeWon => ("stripe", "dispute_won"),
            Movement::Orphaned => ("usdc", "orphaned"),
            Movement::Paid | Movement::Deposited | Movement::Charge | Movement::GiveBack | Movement::Late => {
                return None;
            }
        };
        // What an operator wrote is theirs.
        let reason = credit.reason.filter(|_| credit.topup.is_some());
        Some(Self {
            id: credit.id.uuid(),
            amount_cents: credit.amount.into(),
            source,
            kind,
            reference_id: credit.reference,
            status: "completed",
            payment_id: credit.topup.map(TopupId::uuid),
            reason,
            checkout_url: None,
            receipt_url: None,
            invoice_url: None,
            confirmations: None,
            required_confirmations: None,
            created_at: credit.created_at.to_string(),
            at: credit.created_at,
        })
    }
}

impl From<TopupRow> for Topup {
    fn from(row: TopupRow) -> Self {
        let at = row.completed_at.unwrap_or(row.created_at);
        Self {
            id: row.id.uuid(),
            amount_cents: row.amount.into(),
            source: row.source.name(),
            kind: "payment",
            reference_id: row.details.session.or(row.details.payment),
            status: row.status.name(),
            payment_id: None,
            reason: row.details.failure,
            checkout_url: row.details.url.filter(|_| row.status.is_open()),
            receipt_url: row.details.receipt_url,
            invoice_url: row.details.invoice_url,
            confirmations: None,
            required_confirmations: None,
            created_at: at.to_string(),
            at,
        }
    }
}

impl Topup {
    /// A payment on a chain that is not credited yet; of one that is, the payment's own row tells.
    fn of_deposit(shown: ShownDeposit) -> Option<Self> {
        let ShownDeposit { row, standing, transaction, .. } = shown;
        if !matches!(row.status, DepositStatus::Confirming | DepositStatus::Held) {
            return None;
        }
        Some(Self {
            id: row.id,
            amount_cents: row.seen.amount.into(),
            source: TopupSource::Usdc.name(),
            kind: "payment",
            reference_id: Some(transaction),
            status: TopupStatus::Pending.name(),
            payment_id: None,
            reason: (row.status == DepositStatus::Held).then(|| "below_minimum".to_owned()),
            checkout_url: None,
            receipt_url: None,
            invoice_url: None,
            confirmations: standing.map(|standing| standing.confirmations()),
            required_confirmations: standing.map(|standing| standing.required()),
            created_at: row.seen_at.to_string(),
            at: row.seen_at,
        })
    }
}

/// Payments, grants and what went back, newest first
#[utoipa::path(get, path = "/v1/topup/history", tag = "Money in",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 500)), responses(
    (status = 200, description = "The credits", body = Vec<Topup>),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn history(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Topup>>, ApiError> {
    let limit = Parameters::parse(query.as_deref(), &["limit"])?.count("limit", 1..=MAX_ROWS, MAX_ROWS)?;
    let movements = app.balances.credits(caller.account, limit).await?;
    let payments = app.topups.topups(caller.account, limit).await?;
    let deposits = app.billing.shown_deposits(caller.account, limit).await?.into_iter().filter_map(Topup::of_deposit);
    let payments = payments.into_iter().map(Topup::from).chain(deposits);
    let mut rows: Vec<Topup> = movements.into_iter().filter_map(Topup::of_movement).chain(payments).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.at, row.id)));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(rows))
}
