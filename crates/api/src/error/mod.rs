//! Holds: the one error shape, and the one table from what failed to what the client is told.
//!
//! No text here ever shows a secret, a path, SQL or an upstream's address.

mod files;
mod object;

use std::{borrow::Cow, error::Error, time::Duration};

use axum::response::{IntoResponse, Response};
use batchin_batch::{LineFault, SubmitError};
use batchin_domain::Amount;
use batchin_gateway::{RateInfo, RequestError};
use batchin_openai::{ErrorBody, InvalidRequest, UpstreamError};
use batchin_shares::NoShare;
use batchin_store::{CancelError, CreateUserError, DeliveryError, StoreError, UpdateKeyError};
use batchin_webhooks::SecretError;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use metrics::counter;
use tracing::{error, warn};

pub(crate) use object::ErrorObject;

/// The longest pause that is asked for, whatever is waited for. Of a longer one OpenAI's package for Node is back after half
/// a second, and of more than two minutes its package for Python gives up.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// What a client waits when nobody knows better.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// Characters of a client's own text that a message repeats.
const MAX_ECHO_CHARS: usize = 100;
/// Faults of a batch that one message lists; the rest are counted.
const MAX_LISTED_FAULTS: usize = 10;

pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// The error codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Key missing, unknown or revoked.
    Unauthorized,
    /// Wrong email or password.
    InvalidCredentials,
    /// The balance or the key's budget does not cover it.
    PaymentRequired,
    /// No such object for this caller.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// A body over its limit.
    PayloadTooLarge,
    /// Nothing can serve it now.
    ServiceUnavailable,
    /// The request itself is at fault.
    InvalidRequest,
    /// Known and not allowed.
    Forbidden,
    /// The path exists with other methods.
    MethodNotAllowed,
    /// Too many requests.
    RateLimitExceeded,
    /// No such model.
    ModelNotFound,
    /// The model server failed.
    UpstreamError,
    /// The model server took too long.
    UpstreamTimeout,
    /// The client did not finish sending.
    RequestTimeout,
    /// What is asked for lies beyond the file.
    RangeNotSatisfiable,
    /// The body is in a form that is not read.
    UnsupportedMediaType,
    /// The disk has no room for what may be refused.
    InsufficientStorage,
    /// Our fault.
    Internal,
}

impl Code {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InvalidCredentials => "invalid_credentials",
            Self::PaymentRequired => "payment_required",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::ServiceUnavailable => "service_unavailable",
            Self::InvalidRequest => "invalid_request",
            Self::Forbidden => "forbidden",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::ModelNotFound => "model_not_found",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InsufficientStorage => "insufficient_storage",
            Self::Internal => "internal",
        }
    }

    /// Its HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::InvalidCredentials => StatusCode::UNAUTHORIZED,
            Self::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
            Self::NotFound | Self::ModelNotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The family, as OpenAI's clients know it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Unauthorized | Self::InvalidCredentials => "authentication_error",
            Self::PaymentRequired => "insufficient_quota",
            Self::Forbidden => "permission_error",
            Self::RateLimitExceeded => "rate_limit_error",
            Self::NotFound
            | Self::ModelNotFound
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::InvalidRequest
            | Self::RequestTimeout
            | Self::RangeNotSatisfiable
            | Self::UnsupportedMediaType
            | Self::MethodNotAllowed => "invalid_request_error",
            Self::ServiceUnavailable
            | Self::InsufficientStorage
            | Self::UpstreamError
            | Self::UpstreamTimeout
            | Self::Internal => "server_error",
        }
    }
}

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
}

impl ApiError {
    /// An error of the contract. The message is a whole sentence that says what to do.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let headers = HeaderMap::new();
        let parts = Parts {
            status: code.status(),
            code: Cow::Borrowed(code.name()),
            kind: code.kind(),
            message: message.into(),
            param: None,
            headers,
        };
        Self(Box::new(parts))
    }

    /// The field or parameter at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.0.param = Some(param.into());
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

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

/// A client's own text, short enough to be repeated to it.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
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
        let parts = *self.0;
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
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        if cause.is_passing() {
            warn!(error = &cause as &dyn Error, "the database did not answer a request");
            return Self::unavailable("The database does not answer; try again in a moment.");
        }
        error!(error = &cause as &dyn Error, "a request failed in the store");
        Self::internal()
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(fault: InvalidRequest) -> Self {
        let error = Self::new(Code::InvalidRequest, sentence(fault.message));
        match fault.param {
            Some(param) => error.at(param),
            None => error,
        }
    }
}

impl From<CreateUserError> for ApiError {
    fn from(cause: CreateUserError) -> Self {
        match cause {
            CreateUserError::EmailTaken => {
                Self::new(Code::Conflict, "This email is registered already.").at("email").permanent()
            }
            CreateUserError::Store(cause) => cause.into(),
        }
    }
}

impl From<UpdateKeyError> for ApiError {
    fn from(cause: UpdateKeyError) -> Self {
        match cause {
            UpdateKeyError::NotFound => Self::not_found("key"),
            UpdateKeyError::Store(cause) => cause.into(),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(cause: CancelError) -> Self {
        match cause {
            CancelError::NotFound => Self::not_found("batch"),
            CancelError::Store(cause) => cause.into(),
        }
    }
}

impl From<DeliveryError> for ApiError {
    fn from(cause: DeliveryError) -> Self {
        match cause {
            DeliveryError::NotFound => Self::not_found("delivery"),
            DeliveryError::Store(cause) => cause.into(),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(cause: SecretError) -> Self {
        match cause {
            SecretError::WrongKey => {
                let message = "Webhook secrets cannot be used: the operator must repair `server.secret_key`.";
                Self::new(Code::ServiceUnavailable, message).permanent()
            }
            SecretError::Store(cause) => cause.into(),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(cause: RequestError) -> Self {
        match cause {
            RequestError::Invalid(fault) => fault.into(),
            RequestError::ModelNotFound { model } => {
                let message = format!("There is no model `{}`; GET /v1/models lists what is served.", echo(&model));
                Self::new(Code::ModelNotFound, message).at("model")
            }
            RequestError::NotCapable { model, needs } => {
                let message = format!("`{model}` cannot do {}; GET /v1/models shows what it can.", needs.name());
                Self::invalid("model", message)
            }
            RequestError::OverModelLimit { param, asked, limit } => {
                Self::invalid(param, format!("`{param}` is {asked}; this model has at most {limit}."))
            }
            RequestError::RateLimited(rate) => {
                let message = format!("This key may make {} requests a minute.", rate.limit);
                Self::new(Code::RateLimitExceeded, message).rate(rate).retry_after(rate.reset)
            }
            RequestError::BalanceTooLow { needed, available, affordable_output } => {
                Self::balance_too_low(needed, available, affordable_output)
            }
            // Only a batch's tasks have a cap, and the worker deals with it: no client is ever told this.
            RequestError::CapTooLow => {
                let message = "What is left of the batch's highest cost does not cover this request.";
                Self::new(Code::PaymentRequired, message).permanent()
            }
            RequestError::BudgetTooLow { needed, available } => Self::budget_too_low(needed, available),
            RequestError::CallerGone => Self::unauthorized("This key does not work any more."),
            RequestError::Busy { retry_after } => {
                Self::unavailable("All model servers are busy; try again in a moment.").retry_after(retry_after)
            }
            RequestError::OverShare { retry_after } => {
                let message = "This account has as many requests under way as the server gives to one account now; \
                               wait for some of them to end.";
                Self::over_share(message).retry_after(retry_after)
            }
            RequestError::NoUpstream { retry_after } => {
                Self::unavailable("No model server can serve this model now.").retry_after(retry_after)
            }
            RequestError::Refused { status, error } => Self::refused(status, *error),
            RequestError::UpstreamFailed => Self::new(Code::UpstreamError, "The model server failed."),
            RequestError::UpstreamTimeout => {
                Self::new(Code::UpstreamTimeout, "The model server did not answer in time.")
            }
            RequestError::Stopped => Self::unavailable("The request was stopped; try again."),
            RequestError::IdempotencyMismatch => Self::idempotency_mismatch(),
            RequestError::IdempotencyRunning => Self::idempotency_running(),
            RequestError::IdempotencyCrowded => {
                let message = "Many requests wait for the answer under this Idempotency-Key already; wait for theirs.";
                Self::over_share(message)
            }
            RequestError::IdempotencyCut => Self::new(
                Code::Conflict,
                "The request with this Idempotency-Key was carried out and its answer cannot be given again.",
            )
            .permanent(),
            RequestError::Fenced => Self::unavailable("This server cannot reach its ledger; try again in a moment."),
            RequestError::NotStorable => Self::internal(),
            RequestError::Store(cause) => cause.into(),
        }
    }
}

/// Before another batch is tried when too many are open: batches end in minutes.
const OPEN_BATCHES_PAUSE: Duration = Duration::from_secs(30);

impl From<SubmitError> for ApiError {
    fn from(cause: SubmitError) -> Self {
        match cause {
            SubmitError::Invalid(faults) => {
                let listed: Vec<String> = faults
                    .iter()
                    .take(MAX_LISTED_FAULTS)
                    .map(|fault| match fault.param.as_str() {
                        "" => fault.message.trim_end_matches('.').to_owned(),
                        param => format!("{param}: {}", fault.message.trim_end_matches('.')),
                    })
                    .collect();
                let more = faults.len().saturating_sub(listed.len());
                let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
                let error = Self::new(Code::InvalidRequest, format!("{}{tail}.", listed.join("; ")));
                match faults.into_iter().next() {
                    Some(first) if !first.param.is_empty() => error.at(first.param),
                    Some(_) | None => error,
                }
            }
            SubmitError::BadLines(faults) => Self::bad_lines(faults),
            SubmitError::NoFile => Self::not_found("input file").at("input_file_id"),
            SubmitError::TooManyOpen { open, most, unpaid } => {
                let credit = if unpaid { ", or add credit: more are allowed with some" } else { "" };
                let message = format!(
                    "{open} batches of this account have not ended and at most {most} may be open; wait for some to end, \
                     cancel some{credit}."
                );
                Self::new(Code::RateLimitExceeded, message).retry_after(OPEN_BATCHES_PAUSE)
            }
            SubmitError::File(cause) => cause.into(),
            SubmitError::Blob(cause) => Self::blob(&cause),
            SubmitError::Stopped => Self::unavailable("The batch was not read to its end; send it again."),
            SubmitError::Store(cause) => cause.into(),
        }
    }
}

impl ApiError {
    /// The blobs could not be reached.
    pub(crate) fn blob(cause: &(dyn Error + 'static)) -> Self {
        error!(error = cause, "a blob could not be read or written");
        Self::unavailable("The storage of batches and files does not answer; try again in a moment.")
    }

    /// The first fault of a batch's file, and how many more there are.
    fn bad_lines(faults: Vec<LineFault>) -> Self {
        let more = match faults.len().saturating_sub(1) {
            0 => String::new(),
            1 => "; and 1 more fault".to_owned(),
            more => format!("; and {more} more faults"),
        };
        // Whoever reports faults has at least one.
        let Some(first) = faults.into_iter().next() else { return Self::internal() };
        let what = first.message.trim_end_matches('.');
        let message = match (first.line, &first.param) {
            (Some(line), Some(param)) => format!("Line {line}, {param}: {what}{more}."),
            (Some(line), None) => format!("Line {line}: {what}{more}."),
            (None, _) => sentence(format!("{what}{more}.")),
        };
        let error = Self::new(Code::InvalidRequest, message);
        match first.param {
            Some(param) => error.at(param),
            None => error,
        }
    }

    pub(crate) fn idempotency_mismatch() -> Self {
        let message = "This Idempotency-Key was used for another request; use a new one.";
        Self::new(Code::Conflict, message).permanent()
    }

    pub(crate) fn idempotency_running() -> Self {
        let message = "The first request with this Idempotency-Key is still running.";
        Self::new(Code::Conflict, message).retry_after(SHORT_PAUSE)
    }

    fn balance_too_low(needed: Amount, available: Amount, affordable_output: Option<u64>) -> Self {
        let advice = match affordable_output {
            Some(tokens) => format!("Add credit, or set max_tokens to at most {tokens}."),
            None => "Add credit.".to_owned(),
        };
        let message = format!(
            "The balance does not cover this request: it may cost up to {} cents, and {} cents are available. {advice}",
            needed.to_cents_text(),
            available.to_cents_text()
        );
        Self::new(Code::PaymentRequired, message).permanent()
    }

    fn budget_too_low(needed: Amount, available: Amount) -> Self {
        let message = format!(
            "The key's monthly budget does not cover this request: it may cost up to {} cents, and {} cents are left \
             of the month. Raise the budget or lower max_tokens.",
            needed.to_cents_text(),
            available.to_cents_text()
        );
        Self::new(Code::PaymentRequired, message).permanent()
    }

    /// What a model server says of the request, with 400 or what else is about a body.
    fn refused(status: u16, error: UpstreamError) -> Self {
        let mut shown = Self::new(Code::InvalidRequest, error.message);
        shown.0.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        if let Some(code) = error.code {
            shown.0.code = Cow::Owned(code);
        }
        shown.0.param = error.param.map(Cow::Owned);
        shown
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
