//! Holds: an account's deliveries.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_domain::webhook::DeliveryState;
use batchin_store::{DeliveryError, DeliveryFilter, DeliveryLog};
use serde::Serialize;
use utoipa::ToSchema;

use super::DeliveryObject;
use crate::{
    auth::AccountCaller,
    error::ApiError,
    page::cut,
    query::{Parameters, invalid},
};

/// Deliveries of one answer when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most deliveries of one answer; each brings its attempts.
const MAX_LIMIT: u32 = 200;

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
pub(crate) struct Deliveries {
    data: Vec<DeliveryObject>,
    /// Ask again with `after` set to this for those that follow; null on the last page.
    #[schema(required = true)]
    next_after: Option<String>,
}

fn state(parameters: &Parameters<'_>) -> Result<Option<DeliveryState>, ApiError> {
    let wrong = || invalid("status", "must be pending, delivered, failed or off");
    parameters.text("status").map(|text| DeliveryState::from_name(text).ok_or_else(wrong)).transpose()
}

/// The account's webhook deliveries, newest first
#[utoipa::path(get, path = "/v1/webhooks/deliveries", tag = "Webhooks", params(
    ("status" = Option<String>, Query, description = "`pending`, `delivered`, `failed` or `off`"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 without it"),
    ("after" = Option<String>, Query, description = "The id of the last delivery seen")), responses(
    (status = 200, description = "The deliveries with their attempts", body = Deliveries),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(delivery_log): State<DeliveryLog>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Deliveries>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["status", "limit", "after"])?;
    let limit = parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let unknown = || invalid("after", "must be the id of one of this account's deliveries");
    let after = parameters.text("after").map(|text| text.parse().map_err(|_| unknown())).transpose()?;
    let filter = DeliveryFilter { account: caller.account, state: state(&parameters)?, after, limit: limit + 1 };
    let mut rows = match delivery_log.deliveries(&filter).await {
        Err(DeliveryError::NotFound) => return Err(unknown()),
        read => read?,
    };
    let has_more = cut(&mut rows, limit);
    let next_after = rows.last().filter(|_| has_more).map(|row| row.id.to_string());
    Ok(Json(Deliveries { data: rows.into_iter().map(DeliveryObject::from).collect(), next_after }))
}
