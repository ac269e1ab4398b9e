//! Holds: an account's batches.

use axum::{
    Json,
    extract::{RawQuery, State},
};

use super::BatchObject;
use crate::{app::App, auth::AccountCaller, error::ApiError, openapi::ErrorObject, page::page, query::Parameters};

/// The account's batches, newest first
#[utoipa::path(get, path = "/v1/batches", tag = "Batches", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("offset" = Option<u32>, Query)), responses(
    (status = 200, description = "The batches", body = Vec<BatchObject>),
    (status = 400, description = "A parameter is wrong", body = ErrorObject),
    (status = 401, description = "The key or session is missing or does not work", body = ErrorObject)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<BatchObject>>, ApiError> {
    let page = page(&Parameters::parse(query.as_deref(), &["limit", "offset"])?)?;
    let batches = app.store().batches(caller.account, page.limit, page.offset).await?;
    Ok(Json(batches.into_iter().map(BatchObject::from).collect()))
}
