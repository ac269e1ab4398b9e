//! Holds: embedding texts.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_openai::Endpoint;
use utoipa::ToSchema;

use crate::{app::App, auth::InferenceCaller, error::ApiError, inference, openapi::ErrorObject};

/// Texts to be embedded.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which is passed through")]
pub(crate) struct EmbeddingsRequest {
    #[schema(example = "all-minilm-l6-v2")]
    model: String,
    /// A string, or an array of strings or of token ids.
    #[schema(value_type = Value)]
    input: (),
    /// `float` or `base64`.
    encoding_format: Option<String>,
}

/// Embed texts
///
/// Every other field of OpenAI's API for this call is passed through.
#[utoipa::path(post, path = "/v1/embeddings", tag = "Inference", request_body = EmbeddingsRequest,
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
    inference::answer(&app, &caller, Endpoint::Embeddings, request).await
}
