//! Holds: errors, in Anthropic's shape.

use batchin_openai::Code;
use bytes::Bytes;

use crate::wire::{ErrorDetail, Event, write_json};

/// An error's body.
pub fn error_body(code: Code, message: &str, request_id: &str) -> Bytes {
    let error = Event::Error { error: ErrorDetail { kind: kind(code), message }, request_id: Some(request_id) };
    let mut out = Vec::with_capacity(message.len() + request_id.len() + 96);
    write_json(&error, &mut out);
    out.into()
}

/// The type by which Anthropic's clients know an error.
pub(crate) const fn kind(code: Code) -> &'static str {
    match code {
        Code::Unauthorized | Code::InvalidCredentials => "authentication_error",
        Code::PaymentRequired => "billing_error",
        Code::Forbidden => "permission_error",
        Code::NotFound | Code::ModelNotFound => "not_found_error",
        Code::PayloadTooLarge => "request_too_large",
        Code::RateLimitExceeded | Code::ResourceUnavailable => "rate_limit_error",
        Code::UpstreamTimeout => "timeout_error",
        Code::ServiceUnavailable => "overloaded_error",
        Code::UpstreamError | Code::InsufficientStorage | Code::Internal => "api_error",
        Code::InvalidRequest
        | Code::Conflict
        | Code::MethodNotAllowed
        | Code::RequestTimeout
        | Code::RangeNotSatisfiable
        | Code::UnsupportedMediaType
        | Code::InvalidJsonLine
        | Code::LineTooLong
        | Code::EmptyFile
        | Code::TooManyTasks
        | Code::MissingRequiredParameter
        | Code::InvalidType
        | Code::InvalidCustomId
        | Code::DuplicateCustomId
        | Code::InvalidMethod
        | Code::InvalidUrl
        | Code::MismatchedEndpoint
        | Code::InvalidModel
        | Code::ModelOffline => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_exact() {
        assert_eq!(
            error_body(Code::RateLimitExceeded, "say \"when\"", "req_1"),
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"say \"when\""},"request_id":"req_1"}"#
        );
    }

    #[test]
    fn types_go_with_statuses() {
        for code in Code::ALL {
            let expected: &[&str] = match code.status() {
                401 => &["authentication_error"],
                402 => &["billing_error"],
                403 => &["permission_error"],
                404 => &["not_found_error"],
                413 => &["request_too_large"],
                429 => &["rate_limit_error"],
                503 => &["overloaded_error"],
                504 => &["timeout_error"],
                500.. => &["api_error"],
                _ => &["invalid_request_error"],
            };
            assert!(expected.contains(&kind(code)), "{}", code.name());
        }
    }
}
