//! Holds: the one error shape, and beside it the one table from what failed to what the client is told.
//!
//! No text here ever shows a secret, a path, SQL or an upstream's address.

mod audit;
mod batches;
mod files;
mod films;
mod money;
mod object;
mod requests;
mod stored;
mod unpaid;

use std::{borrow::Cow, time::Duration};

use axum::response::{IntoResponse, Response};
use batchin_domain::Amount;
use batchin_gateway::RateInfo;
use batchin_openai::{Code, ErrorBody};
use batchin_shares::NoShare;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use metrics::counter;

pub(crate) use unpaid::{Unpaid, Whom};

/// The longest pause that is asked for, whatever is waited for. Of a longer one OpenAI's package for Node is back after half
/// a second, and of more than two minutes its package for Python gives up.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// What a client waits when nobody knows better.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// What a client is told when a request fails.
#[derive(Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: Cow<'static, str>,
    kind: &'static str,
    message: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    headers: HeaderMap,
    unpaid: Option<Unpaid>,
}

impl ApiError {
    /// An error of the contract. The message is a whole sentence that says what to do.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let headers = HeaderMap::new();
        let parts = Parts {
            status: StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: Cow::Borrowed(code.name()),
            kind: code.kind(),
            message: message.into(),
            param: None,
            headers,
            unpaid: None,
        };
        Self(Box::new(parts))
    }

    /// The field or parameter at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Money would help, at least so much.
    #[must_use]
    pub(crate) fn unpaid(mut self, missing: Amount) -> Self {
        self.0.unpaid = Some(Unpaid { missing, why: self.0.message.clone(), whom: Whom::Anybody });
        self
    }

    /// Who wants to pay is told what, at least so much; `why` is for their program.
    #[must_use]
    fn for_payer(mut self, missing: Amount, why: impl Into<Cow<'static, str>>) -> Self {
        self.0.unpaid = Some(Unpaid { missing, why: why.into(), whom: Whom::Payer });
        self
    }

    /// When trying again makes sense; sent as one second to one minute.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        let pause = pause.clamp(Duration::from_millis(1), MAX_RETRY_AFTER);
        let seconds = pause.as_millis().div_ceil(1_000).clamp(1, MAX_RETRY_AFTER.as_secs().into());
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        self.0.headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
        self
    }

    /// Trying again gives the same; official clients would, unless told so.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        self
    }

    /// Says more in a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    fn rate(mut self, rate: RateInfo) -> Self {
        rate_headers(rate, &mut self.0.headers);
        self
    }

    /// A key is missing or does not work.
    pub fn unauthorized(message: &'static str) -> Self {
        let mut error = Self::new(Code::Unauthorized, message);
        error.0.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        error
    }

    /// A field is at fault.
    pub fn invalid(param: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidRequest, message).at(param)
    }

    /// No such object for this caller.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// A body is over its limit, in bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Code::PayloadTooLarge, format!("The body is larger than {limit} bytes.")).permanent()
    }

    /// A file is over its limit, in bytes.
    pub(crate) fn file_too_large(limit: u64) -> Self {
        Self::new(Code::PayloadTooLarge, format!("The file is larger than {limit} bytes.")).at("file").permanent()
    }

    /// A part was asked for that lies beyond a file of this length, in bytes.
    pub(crate) fn outside(length: u64) -> Self {
        let mut error = Self::new(Code::RangeNotSatisfiable, format!("The file has {length} bytes."));
        if let Ok(whole) = HeaderValue::try_from(format!("bytes */{length}")) {
            error.0.headers.insert(CONTENT_RANGE, whole);
        }
        error
    }

    /// Nothing can serve it now.
    pub fn unavailable(message: &'static str) -> Self {
        Self::new(Code::ServiceUnavailable, message).retry_after(SHORT_PAUSE)
    }

    /// The caller has its part of what all share.
    pub(crate) fn over_share(message: &'static str) -> Self {
        Self::new(Code::RateLimitExceeded, message).retry_after(SHORT_PAUSE)
    }

    /// There is no place for the connection, which closes with this.
    pub(crate) fn connection_refused(why: NoShare) -> Self {
        let mut error = match why {
            NoShare::Full => {
                Self::unavailable("The server has as many connections as it takes; try again in a moment.")
            }
            NoShare::OverPart => Self::over_share(
                "This network address has as many connections as it may; use fewer, or try again in a moment.",
            ),
        };
        error.0.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        error
    }

    /// Our fault.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "The server failed. Please report it with the x-request-id of this answer.")
    }

    /// The error of the contract that it is; one that a model server names itself, by its status.
    pub(crate) fn code(&self) -> Code {
        Code::from_name(&self.0.code).unwrap_or(match self.0.status {
            StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
            status if status.is_server_error() => Code::UpstreamError,
            _ => Code::InvalidRequest,
        })
    }

    /// For a person.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

/// How a key stands with its rate limit.
pub(crate) fn rate_headers(rate: RateInfo, headers: &mut HeaderMap) {
    let tenths = rate.reset.as_millis().div_ceil(100);
    let values = [
        (LIMIT_REQUESTS, HeaderValue::from_str(itoa::Buffer::new().format(rate.limit))),
        (REMAINING_REQUESTS, HeaderValue::from_str(itoa::Buffer::new().format(rate.remaining))),
        (RESET_REQUESTS, HeaderValue::from_str(&format!("{}.{}s", tenths / 10, tenths % 10))),
    ];
    for (name, value) in values {
        // Digits always make a value.
        value.ok().and_then(|value| headers.insert(name, value));
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut parts = *self.0;
        let unpaid = parts.unpaid.take();
        counter!("batchin_http_errors_total", "status" => parts.status.as_str().to_owned()).increment(1);
        let body = ErrorBody {
            message: &parts.message,
            kind: parts.kind,
            param: parts.param.as_deref(),
            code: Some(&parts.code),
        };
        let mut response = (parts.status, body.to_json()).into_response();
        *response.headers_mut() = parts.headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(unpaid) = unpaid {
            response.extensions_mut().insert(unpaid);
        }
        response
    }
}

/// With a capital and a full stop.
fn sentence(text: String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if first.is_lowercase() => format!("{}{}", first.to_uppercase(), chars.as_str()),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
