//! Holds: what an error of an inference call looks like in the protocol of that call.

use axum::response::{IntoResponse, Response};
use batchin_domain::{CallKind, RequestId};
use batchin_openai::sse;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The answer to a request that failed, which may be one of these calls.
pub(crate) fn refusal(error: ApiError, call: Option<CallKind>, request: RequestId) -> Response {
    match call {
        Some(CallKind::Messages) => of_messages(error, request),
        Some(
            CallKind::Chat
            | CallKind::Completions
            | CallKind::Embeddings
            | CallKind::Responses
            | CallKind::Fim
            | CallKind::Rerank
            | CallKind::Speech
            | CallKind::Transcriptions
            | CallKind::Translations
            | CallKind::Images
            | CallKind::ImageEdits
            | CallKind::Video,
        )
        | None => error.into_response(),
    }
}

/// The same for what belongs to messages and is none of the kinds of call.
pub(crate) fn of_messages(error: ApiError, request: RequestId) -> Response {
    let body = batchin_anthropic::error_body(error.code(), error.message(), &request.to_string());
    let mut response = error.into_response();
    *response.body_mut() = body.into();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    name_for_messages(&mut response, request);
    response
}

/// The request's name where Anthropic's clients look for it.
pub(crate) fn name_for_messages(response: &mut Response, request: RequestId) {
    if let Ok(id) = HeaderValue::try_from(request.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}

/// A refusal as the last event of a stream whose headers have left.
pub(crate) fn as_event(call: CallKind, refusal: &[u8]) -> Bytes {
    match call {
        CallKind::Chat
        | CallKind::Completions
        | CallKind::Embeddings
        | CallKind::Fim
        | CallKind::Rerank
        | CallKind::Speech
        | CallKind::Transcriptions
        | CallKind::Translations
        | CallKind::Images
        | CallKind::ImageEdits
        | CallKind::Video => sse::frame(refusal),
        CallKind::Messages => named_error(refusal),
        CallKind::Responses => {
            let mut event: Value = serde_json::from_slice(refusal).unwrap_or_default();
            let error = event["error"].take();
            let event = json!({ "type": "error", "code": error["code"], "message": error["message"],
                "param": error["param"], "sequence_number": 0 });
            named_error(event.to_string().as_bytes())
        }
    }
}

fn named_error(data: &[u8]) -> Bytes {
    [b"event: error\n", sse::frame(data).as_ref()].concat().into()
}
