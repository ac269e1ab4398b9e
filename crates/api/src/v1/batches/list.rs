//! Holds: an account's batches.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::BatchRows;

use super::BatchObject;
use crate::{
    auth::AccountCaller,
    error::ApiError,
    page::{after, no_row, page},
    query::Parameters,
};

/// The account's batches, newest first
#[utoipa::path(get, path = "/v1/batches", tag = "Batches", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("after" = Option<Uuid>, Query,
        description = "The `id` of the last batch seen: those that follow it, whatever has come in since"),
    ("offset" = Option<u32>, Query, description = "How many to pass over; not together with `after`")), responses(
    (status = 200, description = "The batches", body = Vec<BatchObject>),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "`after` names nothing in the list", body = ApiError)))]
pub(crate) async fn list(
    State(batch_rows): State<BatchRows>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<BatchObject>>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "offset", "after"])?;
    let (page, after) = (page(&parameters)?, after(&parameters)?);
    if let Some(after) = after
        && !batch_rows.has_batch(caller.account, after).await?
    {
        return Err(no_row());
    }
    let batches = match after {
        Some(_) => batch_rows.batches_after(caller.account, after, page.limit).await?,
        None => batch_rows.batches(caller.account, page.limit, page.offset).await?,
    };
    Ok(Json(batches.into_iter().map(BatchObject::from).collect()))
}
