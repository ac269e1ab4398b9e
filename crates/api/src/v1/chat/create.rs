//! Holds: answering a conversation.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_openai::Endpoint;
use utoipa::ToSchema;

use crate::{app::App, auth::InferenceCaller, error::ApiError, inference, openapi::ErrorObject};

/// A conversation to be continued.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which is passed through")]
pub(crate) struct ChatRequest {
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    /// As in OpenAI's API.
    #[schema(value_type = Vec<Object>, min_items = 1)]
    messages: (),
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// Most tokens of one answer.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
}

/// Continue a conversation
///
/// Every other field of OpenAI's API for this call is passed through; with `stream: true` the answer is server-sent
/// events that close with `data: [DONE]`.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "Inference", request_body = ChatRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "OpenAI's answer for this call", content_type = "application/json", body = Object),
    (status = 400, description = "The request is at fault", body = ErrorObject),
    (status = 401, description = "The key is missing or does not work", body = ErrorObject),
    (status = 402, description = "The balance or the key's budget does not cover the request", body = ErrorObject),
    (status = 404, description = "No such model", body = ErrorObject),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ErrorObject),
    (status = 413, description = "The body is over its limit", body = ErrorObject),
    (status = 429, description = "The key's rate limit is used up", body = ErrorObject),
    (status = 502, description = "The model server failed", body = ErrorObject),
    (status = 503, description = "No model server can serve it now", body = ErrorObject),
    (status = 504, description = "The model server took too long", body = ErrorObject)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: InferenceCaller,
    request: Request,
) -> Result<Response, ApiError> {
    inference::answer(&app, &caller, Endpoint::Chat, request).await
}
