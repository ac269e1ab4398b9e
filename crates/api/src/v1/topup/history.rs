//! Holds: what was credited.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::{Balances, Credited};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{auth::AccountCaller, cents::Cents, error::ApiError, query::Parameters};

/// Most rows of one answer.
const MAX_ROWS: u32 = 500;

/// A credit.
#[derive(Serialize, ToSchema)]
pub(crate) struct Topup {
    id: Uuid,
    amount_cents: Cents,
    /// `grant`: given by the operator. `correction`: taken back by them; the amount is below 0.
    #[schema(example = "grant")]
    source: &'static str,
    /// Its name outside, where it has one.
    #[schema(required = true)]
    reference_id: Option<String>,
    #[schema(example = "completed")]
    status: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Credited> for Topup {
    fn from(credit: Credited) -> Self {
        Self {
            id: credit.id.uuid(),
            amount_cents: credit.amount.into(),
            source: if credit.amount.nanos() < 0 { "correction" } else { "grant" },
            reference_id: credit.reference,
            status: "completed",
            created_at: credit.created_at.to_string(),
        }
    }
}

/// Credits of the account, newest first
#[utoipa::path(get, path = "/v1/topup/history", tag = "Money in",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 500)), responses(
    (status = 200, description = "The credits", body = Vec<Topup>),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn history(
    State(balances): State<Balances>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Topup>>, ApiError> {
    let limit = Parameters::parse(query.as_deref(), &["limit"])?.count("limit", 1..=MAX_ROWS, MAX_ROWS)?;
    let credits = balances.credits(caller.account, limit).await?;
    Ok(Json(credits.into_iter().map(Topup::from).collect()))
}
