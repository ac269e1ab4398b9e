//! Holds: what the engine answers when it does not do what was asked: always OpenAI's error object.

use http::{Response, StatusCode, header};
use serde_json::json;

use super::{AnswerBody, full};

/// A refusal, ready for the wire. Never carries text of a prompt or of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<String>,
    message: String,
}

impl ApiError {
    /// The request cannot be served as it stands; `param` names the field.
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::malformed(message) }
    }

    /// The request cannot be read at all.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code: "invalid_request",
            param: None,
            message: message.into(),
        }
    }

    /// The prompt does not fit.
    pub(super) fn context_length(param: &str, tokens: usize, limit: usize) -> Self {
        let message = format!("This model's maximum context length is {limit} tokens; the input has {tokens} tokens.");
        Self { code: "context_length_exceeded", ..Self::invalid(param, message) }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "payload_too_large",
            ..Self::malformed(format!("The body is larger than {limit} bytes."))
        }
    }

    pub(super) fn model_not_found(id: &str, served: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "model_not_found",
            ..Self::invalid("model", format!("There is no model `{id}` for this call; served are: {served}."))
        }
    }

    pub(super) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not_found", ..Self::malformed("There is no such path.") }
    }

    pub(super) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method_not_allowed",
            ..Self::malformed("This path does not take this method.")
        }
    }

    /// Too many wait already, or the engine is stopping.
    pub(super) fn unavailable(message: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "unavailable_error",
            code: "service_unavailable",
            ..Self::malformed(message)
        }
    }

    pub(super) fn internal() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            code: "internal",
            ..Self::malformed("The engine could not compute this request.")
        }
    }

    /// The error object alone, as it stands in a stream.
    pub(super) fn to_json(&self) -> String {
        let Self { kind, code, param, message, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}}).to_string()
    }

    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let mut response = Response::new(full(self.to_json()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}
