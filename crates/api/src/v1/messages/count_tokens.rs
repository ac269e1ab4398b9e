//! Holds: how many tokens a conversation has, before it is sent.

use std::collections::HashMap;

use axum::{
    Extension, Json,
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse as _, Response},
};
use batchin_domain::{CallKind, Class, Measure, RequestId};
use batchin_gateway::Inbound;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::MessagesErrorObject;
use crate::{app::App, auth::InferenceCaller, body, error::ApiError, told};

/// The tokens of a conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenCount {
    /// Counted by the rule for text that no model server has counted: one for each four bytes, images as a thousand.
    #[schema(example = 14)]
    input_tokens: u64,
}

/// Count a conversation's tokens
///
/// Of a body as POST /v1/messages takes it, `max_tokens` left out or not. An estimate, as it is in Anthropic's API: model
/// servers count when they answer. Nothing is charged.
#[utoipa::path(post, path = "/v1/messages/count_tokens", tag = "Inference", request_body = serde_json::Value, responses(
    (status = 200, description = "The count", body = TokenCount),
    (status = 400, description = "The request is at fault", body = MessagesErrorObject),
    (status = 401, description = "The key is missing or does not work", body = MessagesErrorObject),
    (status = 404, description = "No such model", body = MessagesErrorObject),
    (status = 413, description = "The body is over its limit", body = MessagesErrorObject),
    (status = 503, description = "The model is offline", body = MessagesErrorObject)))]
pub(crate) async fn count_tokens(
    State(app): State<App>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    match counted(&app, id, request).await {
        Ok(count) => Json(count).into_response(),
        Err(error) => told::of_messages(error, id),
    }
}

async fn counted(app: &App, request: RequestId, call: Request<Body>) -> Result<TokenCount, ApiError> {
    let (mut parts, body) = call.into_parts();
    let caller = InferenceCaller::from_request_parts(&mut parts, app).await?;
    let body = body::read(&app.bodies.of(caller.0.account), &parts.headers, body, app.settings.max_body_bytes).await?;
    let body = with_limit(body);
    let (call, class) = (CallKind::Messages, Class::Interactive);
    let checked = app.gateway.check(&Inbound {
        call,
        body,
        request,
        class,
        task: None,
        sound: None,
        shown: None,
        pictures_in_both: false,
        idempotency: None,
    })?;
    Ok(TokenCount { input_tokens: checked.expected.of(Measure::PromptTokens) })
}

/// The body with a limit, which a message needs and a count does not.
fn with_limit(body: Bytes) -> Bytes {
    let members: Option<HashMap<String, &RawValue>> = serde_json::from_slice(&body).ok();
    if members.is_none_or(|members| members.contains_key("max_tokens")) {
        return body;
    }
    let start = body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    let rest = body.get(start..).unwrap_or_default();
    let comma: &[u8] = if rest.trim_ascii_start().starts_with(b"}") { b"" } else { b"," };
    [b"{\"max_tokens\":1", comma, rest].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_added_where_there_is_none() {
        for (body, expected) in [
            (r#" {"model":"m"}"#, r#"{"max_tokens":1,"model":"m"}"#),
            ("{ }", r#"{"max_tokens":1 }"#),
            (r#"{"max_tokens":9}"#, r#"{"max_tokens":9}"#),
            ("[1]", "[1]"),
            ("{", "{"),
        ] {
            assert_eq!(with_limit(Bytes::copy_from_slice(body.as_bytes())), expected);
        }
    }
}
