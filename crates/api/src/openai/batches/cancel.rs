//! Holds: stopping a batch.

use axum::{Json, extract::State};
use batchin_batch::Batches;
use batchin_store::BatchRows;

use super::BatchObject;
use crate::{auth::AccountCaller, error::ApiError, path::PathText};

/// Stop a batch
///
/// It is `cancelling` until its files have been put together, and then `cancelled`: what had completed stays, what was
/// not run stands in the error file as `batch_cancelled`. A batch that has ended stays as it is.
#[utoipa::path(post, path = "/openai/v1/batches/{id}/cancel", tag = "Batches", params(("id" = String, Path)), responses(
    (status = 200, description = "Where it stands", body = BatchObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such batch in this account", body = ApiError)))]
pub(crate) async fn cancel(
    State(batches): State<Batches>,
    State(batch_rows): State<BatchRows>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<BatchObject>, ApiError> {
    let id = id.batch()?;
    batches.cancel(caller.account, id).await?;
    let batch = batch_rows.batch(caller.account, id).await?;
    Ok(Json(batch.ok_or_else(|| ApiError::not_found("batch"))?.into()))
}
