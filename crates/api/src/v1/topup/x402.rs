//! Holds: paying in USDC by a program, over x402.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use batchin_billing::X402Payment;
use batchin_domain::Amount;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::AccountCaller,
    body,
    cents::Cents,
    error::ApiError,
    fields::Fields,
    unpaid::{self, PAYMENT_SIGNATURE},
};

const MAX_BODY_BYTES: usize = 4_096;

/// How much is to be asked for; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct PayOverX402;

/// A payment that the facilitator has carried out.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaidOverX402 {
    /// `settled` (the facilitator says so, and the chain has not been read that far), `confirming`, `credited`, or what else
    /// `GET /v1/topup/usdc/deposits` says of it. Only what is credited is in the balance.
    #[schema(example = "confirming")]
    status: &'static str,
    #[schema(example = "base")]
    chain: String,
    #[schema(example = "0x5c50…")]
    transaction: String,
    /// Who paid.
    from: String,
    amount_cents: Cents,
    /// Blocks that have been read since, with its own; null where it has not been seen.
    #[schema(required = true)]
    confirmations: Option<u64>,
    required_confirmations: u32,
}

impl From<&X402Payment> for PaidOverX402 {
    fn from(payment: &X402Payment) -> Self {
        let deposit = payment.deposit.as_ref();
        Self {
            status: deposit.map_or("settled", |deposit| deposit.row.status.name()),
            chain: payment.chain.name.to_string(),
            transaction: payment.transaction.clone(),
            from: payment.payer.clone(),
            amount_cents: payment.amount.into(),
            confirmations: deposit.and_then(|deposit| Some(deposit.standing?.confirmations())),
            required_confirmations: payment.chain.required_confirmations,
        }
    }
}

/// Pay over x402
///
/// Without `PAYMENT-SIGNATURE` the answer is 402 with `PAYMENT-REQUIRED`, and official clients of x402 version 2 do the rest. The
/// account's own address is paid; credit comes from the chain alone. The same signature pays once, however often it is sent.
#[utoipa::path(post, path = "/v1/topup/x402", tag = "Money in", request_body = PayOverX402,
    params(("PAYMENT-SIGNATURE" = Option<String>, Header, description = "What was signed, as x402 version 2 sends it")), responses(
    (status = 200, description = "The facilitator has carried it out", body = PaidOverX402, headers(
        ("PAYMENT-RESPONSE" = String, description = "The same, as x402 version 2 says it"))),
    (status = 400, description = "The amount is none, or PAYMENT-SIGNATURE cannot be read", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 402, description = "What is to be signed, in the header PAYMENT-REQUIRED; nothing was paid", body = ApiError),
    (status = 409, description = "The signature was used before", body = ApiError),
    (status = 503, description = "No payments over x402 are set up, or the facilitator does not answer", body = ApiError)))]
pub(crate) async fn pay(State(app): State<App>, caller: AccountCaller, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let wished = wished(&body)?;
    if !app.billing.takes_x402() {
        return Err(batchin_billing::X402Error::NotSetUp.into());
    }
    let Some(signature) = parts.headers.get(PAYMENT_SIGNATURE) else { return Err(ApiError::to_be_paid(wished)) };
    let payment = unpaid::pay(&app, caller.account, signature).await?;
    let told = Json(PaidOverX402::from(&payment)).into_response();
    Ok(unpaid::receipted(&payment, told))
}

/// Nothing where the operator's least will do.
fn wished(body: &[u8]) -> Result<Amount, ApiError> {
    if body.is_empty() {
        return Ok(Amount::ZERO);
    }
    Ok(Fields::parse(body, &["amount_cents"])?.optional_cents("amount_cents")?.unwrap_or(Amount::ZERO))
}
