//! Holds: answering a conversation.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use batchin_domain::{CallKind, RequestId};
use utoipa::ToSchema;

use crate::{app::App, error::ApiError, inference};

/// A conversation to be continued; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct ChatRequest;

/// Continue a conversation
///
/// Every other field of OpenAI's API for this call is passed through; with `stream: true` the answer is server-sent
/// events that close with `data: [DONE]`.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "Inference", request_body = ChatRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "OpenAI's answer for this call", content_type = "application/json", body = Object),
    inference::Refusals))]
pub(crate) async fn create(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    inference::answer(&app, (CallKind::Chat, id), request, |_| ()).await
}
