//! Holds: submitting a batch inline.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_domain::Priority;
use batchin_gateway::Caller;
use bytes::Bytes;
use utoipa::ToSchema;

use super::BatchObject;
use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::ApiError,
    idempotent::{Creation, Keep, once},
    openapi::ErrorObject,
};

/// Tasks to be run later.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which the batch's intake reads")]
pub(crate) struct CreateBatch {
    #[schema(min_items = 1)]
    tasks: Vec<CreateTask>,
    /// `high`, `low` or `fill`; the price follows from it.
    #[schema(value_type = Option<String>, example = "low")]
    priority: Option<Priority>,
    webhook_url: Option<String>,
    /// How long it may take: whole hours or days, from `1h` to `7d`. Without it, as long as it takes.
    #[schema(example = "24h")]
    completion_window: Option<String>,
    /// It stops before it costs more.
    #[schema(value_type = Option<f64>)]
    max_cost_cents: Option<()>,
    /// At most 16 pairs of texts.
    #[schema(value_type = Option<Object>)]
    metadata: Option<()>,
}

/// A request to be made later.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which the batch's intake reads")]
pub(crate) struct CreateTask {
    /// Unique in the batch.
    #[schema(example = "task-1")]
    custom_id: String,
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    /// The body of the call, without `model`.
    #[schema(value_type = Object)]
    request_body: (),
    /// The call; without it, it follows from the body.
    #[schema(example = "/v1/chat/completions")]
    url: Option<String>,
}

/// Submit a batch
///
/// One batch may mix models and kinds of task. Every fault is reported with its position before anything is stored.
#[utoipa::path(post, path = "/v1/batches", tag = "Batches", request_body = CreateBatch,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "The batch", body = BatchObject),
    (status = 400, description = "The batch is at fault", body = ErrorObject),
    (status = 401, description = "The key or session is missing or does not work", body = ErrorObject),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ErrorObject),
    (status = 413, description = "The body is over 2,000,000 bytes", body = ErrorObject)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read(&app.bodies, &parts.headers, body, app.settings.max_inline_batch_bytes).await?.bytes;
    let creation = Creation { account: caller.account, route: "/v1/batches", body: &body, keep: Keep::Answer };
    once(&app, &parts.headers, creation, submit(app.clone(), caller.caller(), body.clone())).await
}

async fn submit(app: App, caller: Caller, body: Bytes) -> Result<BatchObject, ApiError> {
    Ok(app.batches.submit(&caller, body).await?.into())
}
