//! Holds: paying in USDC: where to, and what came.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use batchin_billing::{DepositPlace, ShownDeposit};
use batchin_domain::DepositStatus;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{app::App, auth::AccountCaller, cents::Cents, error::ApiError, path::PathText, query::Parameters};

/// Most rows of one answer.
const MAX_ROWS: u32 = 500;

/// Where the account pays in USDC.
#[derive(Serialize, ToSchema)]
pub(crate) struct Chains {
    chains: Vec<ChainObject>,
}

/// A chain that USDC comes on.
#[derive(Serialize, ToSchema)]
#[schema(as = Chain)]
pub(crate) struct ChainObject {
    #[schema(example = "base")]
    chain: String,
    /// The account's own address, the same on all chains.
    #[schema(example = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94")]
    deposit_address: String,
    /// Blocks, with its own, before a payment is credited.
    required_confirmations: u32,
    /// The chain's number.
    #[schema(example = 8453)]
    chain_id: u64,
    /// The contract of the one token that is credited.
    #[schema(example = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")]
    token_contract: String,
    /// Payments below this wait for more.
    minimum_cents: Cents,
    /// What wallets read (EIP-681); the payer chooses the amount.
    payment_uri: String,
    /// The same as a QR code, in SVG, with `amount_cents` for an amount.
    qr_url: String,
}

impl From<DepositPlace> for ChainObject {
    fn from(place: DepositPlace) -> Self {
        let name = place.chain.name.to_string();
        Self {
            qr_url: format!("/v1/topup/usdc/chains/{name}/qr.svg"),
            chain: name,
            deposit_address: place.address,
            required_confirmations: place.chain.required_confirmations,
            chain_id: place.chain.id,
            token_contract: place.chain.usdc.to_string(),
            minimum_cents: place.min.into(),
            payment_uri: place.payment_uri,
        }
    }
}

/// A payment on a chain.
#[derive(Serialize, ToSchema)]
#[schema(as = Deposit)]
pub(crate) struct DepositObject {
    id: Uuid,
    #[schema(example = "base")]
    chain: String,
    #[schema(example = "0x5c50…")]
    transaction: String,
    /// The contract of the token that came.
    token_contract: String,
    /// Where it went.
    deposit_address: String,
    /// Who paid.
    from: String,
    /// In the token's smallest unit.
    #[schema(example = "25000000")]
    base_units: String,
    /// What it is worth; null where its token is not credited.
    #[schema(required = true)]
    amount_cents: Option<Cents>,
    /// `confirming`, `held` (final, and waits for more, since it is below the minimum), `credited`, `orphaned` (its block has gone)
    /// or `unsupported_token`, which is never credited.
    #[schema(example = "confirming")]
    status: &'static str,
    block_number: u64,
    /// Blocks that have been read since, with its own; null where its chain is not watched any more.
    #[schema(required = true)]
    confirmations: Option<u64>,
    #[schema(required = true)]
    required_confirmations: Option<u32>,
    /// What the chain has yet to say of its block: `safe` or `finalized`.
    #[schema(required = true)]
    waits_for: Option<&'static str>,
    /// The payment that it was credited with, in `GET /v1/topup/history`.
    #[schema(required = true)]
    payment_id: Option<Uuid>,
    #[schema(format = DateTime)]
    seen_at: String,
    #[schema(required = true, format = DateTime)]
    credited_at: Option<String>,
}

impl From<ShownDeposit> for DepositObject {
    fn from(shown: ShownDeposit) -> Self {
        let ShownDeposit { row, chain, standing, transaction, token, address } = shown;
        let is_there = row.status != DepositStatus::Orphaned;
        let standing = standing.filter(|_| is_there);
        let is_waiting = matches!(row.status, DepositStatus::Confirming | DepositStatus::Held);
        Self {
            id: row.id,
            chain,
            transaction,
            token_contract: token,
            deposit_address: address,
            from: row.seen.payer,
            base_units: row.seen.base_units.to_string(),
            amount_cents: row.seen.supported.then(|| row.seen.amount.into()),
            status: row.status.name(),
            block_number: row.seen.block_number,
            confirmations: standing.map(|standing| standing.confirmations()),
            required_confirmations: standing.map(|standing| standing.required()),
            waits_for: standing.filter(|_| is_waiting).and_then(|standing| standing.waits_for()),
            payment_id: row.topup.map(batchin_domain::TopupId::uuid),
            seen_at: row.seen_at.to_string(),
            credited_at: row.credited_at.map(|at| at.to_string()),
        }
    }
}

/// Where the account pays in USDC
///
/// Without chains set up by the operator the list is empty. Only the native USDC of a chain is credited.
#[utoipa::path(get, path = "/v1/topup/usdc/chains", tag = "Money in", responses(
    (status = 200, description = "The account's own addresses", body = Chains),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn chains(State(app): State<App>, caller: AccountCaller) -> Result<Json<Chains>, ApiError> {
    let chains = app.billing.deposit_places(caller.account).await?.into_iter().map(ChainObject::from).collect();
    Ok(Json(Chains { chains }))
}

/// What a wallet scans to pay
#[utoipa::path(get, path = "/v1/topup/usdc/chains/{chain}/qr.svg", tag = "Money in",
    params(("chain" = String, Path), ("amount_cents" = Option<u32>, Query, minimum = 1, maximum = 4294967295u32)), responses(
    (status = 200, description = "A QR code of the payment URI (EIP-681)", content_type = "image/svg+xml"),
    (status = 400, description = "The amount is none", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such chain is set up", body = ApiError)))]
pub(crate) async fn picture(
    State(app): State<App>,
    caller: AccountCaller,
    chain: PathText,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let amount = Parameters::parse(query.as_deref(), &["amount_cents"])?.count("amount_cents", 1..=u32::MAX, 0)?;
    let amount = (amount > 0).then(|| batchin_domain::Amount::from_cents(amount));
    let svg = app.billing.deposit_picture(caller.account, chain.as_str(), amount).await?;
    let headers = [
        (CONTENT_TYPE, "image/svg+xml"),
        (CACHE_CONTROL, "private, no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ];
    Ok((headers, svg).into_response())
}

/// Payments on chains, newest first
#[utoipa::path(get, path = "/v1/topup/usdc/deposits", tag = "Money in",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 500)), responses(
    (status = 200, description = "The account's payments, from first sight on", body = Vec<DepositObject>),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn deposits(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<DepositObject>>, ApiError> {
    let limit = Parameters::parse(query.as_deref(), &["limit"])?.count("limit", 1..=MAX_ROWS, MAX_ROWS)?;
    let shown = app.billing.shown_deposits(caller.account, limit).await?;
    Ok(Json(shown.into_iter().map(DepositObject::from).collect()))
}
