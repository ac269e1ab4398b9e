//! Holds: submitting a batch inline.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_batch::Remember;
use batchin_gateway::Caller;
use batchin_store::{BatchRow, IdempotencyScope};
use bytes::Bytes;
use utoipa::ToSchema;

use super::BatchObject;
use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::{ApiError, ErrorObject},
    idempotent::{Creation, Keep, once, remembered},
    openai::{batches::create::of_body, flavour::names_file},
};

/// Tasks to be run later; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateBatch;

/// Submit a batch
///
/// One batch may mix models and kinds of task. Every fault is reported with its position before anything is stored. A
/// body with `input_file_id` in place of `tasks` is OpenAI's: it is taken, and answered, as at POST /openai/v1/batches.
#[utoipa::path(post, path = "/v1/batches", tag = "Batches", request_body = CreateBatch,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "The batch", body = BatchObject),
    (status = 400, description = "The batch is at fault", body = ErrorObject),
    (status = 401, description = "The key or session is missing or does not work", body = ErrorObject),
    (status = 404, description = "No such file in this account", body = ErrorObject),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ErrorObject),
    (status = 402, description = "An account without credit keeps no more files", body = ErrorObject),
    (status = 413, description = "The body is over 2,000,000 bytes, or the account keeps no more", body = ErrorObject),
    (status = 507, description = "The server's disk is nearly full", body = ErrorObject)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body =
        body::read(&app.bodies.of(caller.account), &parts.headers, body, app.settings.max_inline_batch_bytes).await?;
    if names_file(&body) {
        return of_body(app, caller, &parts.headers, body).await;
    }
    let creation = Creation { account: caller.account, route: "/v1/batches", body: &body, keep: Keep::Answer };
    let work = |scope| submit(app.clone(), caller.caller(), body.clone(), scope);
    once(&app, &parts.headers, creation, work).await
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
