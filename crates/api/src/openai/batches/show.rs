//! Holds: one batch.

use axum::{Json, extract::State};
use batchin_store::BatchRows;

use super::BatchObject;
use crate::{auth::AccountCaller, error::ApiError, path::PathText};

/// A batch
#[utoipa::path(get, path = "/openai/v1/batches/{id}", tag = "Batches", params(("id" = String, Path)), responses(
    (status = 200, description = "The batch", body = BatchObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such batch in this account", body = ApiError)))]
pub(crate) async fn show(
    State(batch_rows): State<BatchRows>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<BatchObject>, ApiError> {
    let batch = batch_rows.batch(caller.account, id.batch()?).await?;
    Ok(Json(batch.ok_or_else(|| ApiError::not_found("batch"))?.into()))
}
