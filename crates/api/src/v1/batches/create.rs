//! Holds: submitting a batch inline.

use axum::response::Response;
use batchin_batch::Remember;
use batchin_gateway::Caller;
use batchin_store::{BatchRow, IdempotencyScope};
use bytes::Bytes;
use http::HeaderMap;
use utoipa::ToSchema;

use super::BatchObject;
use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    idempotent::{Creation, Keep, once, remembered},
};

/// Tasks to be run later; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateBatch;

/// Submits the tasks of a body.
pub(crate) async fn of_tasks(
    app: App,
    caller: AccountCaller,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let creation = Creation { account: caller.account, route: "/v1/batches", body: &body, keep: Keep::Answer };
    let work = |scope| submit(app.clone(), caller.caller(), body.clone(), scope);
    once(&app, headers, creation, work).await
}

async fn submit(
    app: App,
    caller: Caller,
    body: Bytes,
    scope: Option<IdempotencyScope>,
) -> Result<BatchObject, ApiError> {
    let remember = scope.map(|scope| -> Remember {
        Box::new(move |batch: &BatchRow| (scope, remembered(&BatchObject::from(batch.clone()))))
    });
    Ok(app.batches.submit(&caller, body, remember).await?.into())
}
