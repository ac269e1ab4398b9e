//! Holds: stopping a batch.

use axum::{Json, extract::State};
use batchin_batch::Batches;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{auth::AccountCaller, error::ApiError, path::PathText};

/// A batch that was asked to stop.
#[derive(Serialize, ToSchema)]
pub(crate) struct CancelledBatch {
    id: Uuid,
    /// `cancelled`, or however it had ended before.
    #[schema(example = "cancelled")]
    status: &'static str,
    /// How many tasks were stopped.
    stopped_tasks: u64,
}

/// Stop a batch
///
/// What waits is not run and what runs is stopped; tasks that have completed keep their results. A batch that has
/// ended stays as it is.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", tag = "Batches", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "Where it stands", body = CancelledBatch),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such batch in this account", body = ApiError)))]
pub(crate) async fn cancel(
    State(batches): State<Batches>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<CancelledBatch>, ApiError> {
    let id = id.batch()?;
    let cancelled = batches.cancel(caller.account, id).await?;
    let (status, stopped_tasks) = (cancelled.status.name(), cancelled.stopped);
    Ok(Json(CancelledBatch { id: id.uuid(), status, stopped_tasks }))
}
