//! Holds: how calls and streams fail, and what each failure means for the next step.
//!
//! Classification is data; whether to retry is the caller's decision.

use std::{io, time::Duration};

use batchin_openai::{InvalidRequest, UpstreamError, stated_limit, upstream_error_message};
use http::{HeaderMap, StatusCode, header};

use crate::{
    Call,
    breaker::Outcome,
    refusal::{About, UNSAID, about, is_quota},
};

/// The status of a server that wants to be paid.
const QUOTA: u16 = 402;

/// A call that brought no answer and no first byte of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct CallError {
    /// What happened.
    pub kind: CallErrorKind,
    /// What may be done next.
    pub retry: Retry,
    /// For the client, when the request itself is at fault.
    pub client_error: Option<Box<UpstreamError>>,
}

/// What happened to a call. Nothing here names an address, so it may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallErrorKind {
    /// No connection.
    #[error("no connection to the model server ({})", cause(*.0))]
    Connect(io::ErrorKind),
    /// The connection broke before the answer.
    #[error("the model server broke off before answering")]
    Reset,
    /// No first byte, or a stalled body, within the configured time.
    #[error("the model server did not answer in time")]
    Timeout,
    /// It refused with this status.
    #[error("the model server answered with status {0}")]
    Status(u16),
    /// A success whose body is none.
    #[error("the model server's answer cannot be read")]
    BadAnswer,
    /// An answer in an encoding that was not asked for and is not known.
    #[error("the model server's answer is in an encoding that cannot be read")]
    Encoding,
    /// More than [`MAX_ANSWER_BYTES`](crate::MAX_ANSWER_BYTES).
    #[error("the model server's answer is too large")]
    TooLarge,
    /// Not asked at all, or in vain: a server of its kind cannot do this with the model.
    #[error("the model server cannot do this with the model")]
    Unfit,
    /// It does not run its workflow to an end that has what was asked for.
    #[error("the model server does not run its workflow")]
    Workflow,
    /// Not asked at all: the breaker is open or cooling down.
    #[error("the model server is not being asked after failures")]
    Unavailable,
}

/// Why there is no connection, in an operator's words.
fn cause(kind: io::ErrorKind) -> String {
    match kind {
        // As rustls says that a certificate or what came in place of one is not to be trusted.
        io::ErrorKind::InvalidData => "TLS failed".to_owned(),
        other => other.to_string(),
    }
}

/// What may be done after a failed call. None of the failures has produced anything that is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Ask another replica now.
    OtherReplica,
    /// Ask another replica now, or this one after this time (a guess of the caller's when `None`).
    Later(Option<Duration>),
    /// Any server would say the same.
    Never,
}

/// A stream that ended badly after its first event. Nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It ended, by `[DONE]` or without it, before each choice had its finish reason.
    #[error("the model server's stream ended early")]
    Truncated,
    /// No byte came for the configured time.
    #[error("the model server's stream stalled")]
    Stalled,
    /// The connection broke.
    #[error("the connection to the model server broke ({0})")]
    Broken(io::ErrorKind),
    /// An event is larger than [`MAX_EVENT_BYTES`](batchin_openai::sse::MAX_EVENT_BYTES), or the answer that is put together larger than agreed.
    #[error("the model server sent more than is taken")]
    TooLarge,
    /// An event is not what the protocol has.
    #[error("the model server sent an event that cannot be read")]
    BadEvent,
}

/// What comes in place of an answer although its status is good.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// What the server says went wrong: the whole body, or a stream's first event.
    Said(UpstreamError),
    /// Nothing that can be read.
    Failed(CallError),
}

impl From<CallError> for Unanswered {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unanswered> for CallError {
    fn from(none: Unanswered) -> Self {
        match none {
            Unanswered::Said(error) => Self::reported(error),
            Unanswered::Failed(error) => error,
        }
    }
}

impl CallError {
    pub(crate) fn other_replica(kind: CallErrorKind) -> Self {
        Self { kind, retry: Retry::OtherReplica, client_error: None }
    }

    /// This server cannot be asked for it, as the client is told where none can.
    pub(crate) fn unfit(fault: InvalidRequest) -> Self {
        let InvalidRequest { message, param, .. } = fault;
        let said = UpstreamError { message, param, code: None, kind: None, status: None };
        Self { kind: CallErrorKind::Unfit, retry: Retry::OtherReplica, client_error: Some(Box::new(said)) }
    }

    /// A stream that ended badly.
    pub(crate) fn broke_off(error: StreamError) -> Self {
        match error {
            StreamError::Stalled => Self::other_replica(CallErrorKind::Timeout),
            StreamError::Broken(_) => Self::other_replica(CallErrorKind::Reset),
            StreamError::Truncated | StreamError::BadEvent => Self::other_replica(CallErrorKind::BadAnswer),
            StreamError::TooLarge => Self { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None },
        }
    }

    /// Reads a refusal. What blames the operator's key, account or address never reaches the client.
    pub(crate) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        Self::of(status.as_u16(), upstream_error_message(status.as_u16(), body), retry_after(headers))
    }

    /// An error that came with a good status or as an event of a stream.
    pub(crate) fn reported(error: UpstreamError) -> Self {
        Self::of(error.status.unwrap_or(UNSAID), error, None)
    }

    fn of(status: u16, said: UpstreamError, pause: Option<Duration>) -> Self {
        let word = |word: &Option<String>| word.as_deref().is_some_and(is_quota);
        // The operator's account there is used up; that some servers call it "too many requests" is of no use here.
        let kind = CallErrorKind::Status(if word(&said.code) || word(&said.kind) { QUOTA } else { status });
        let retry = match about(status, &said) {
            About::Request => Retry::Never,
            About::Server => Retry::OtherReplica,
            About::Load => Retry::Later(pause),
            About::Passing => pause.map_or(Retry::OtherReplica, |after| Retry::Later(Some(after))),
        };
        let client_error = (retry == Retry::Never).then(|| Box::new(said));
        Self { kind, retry, client_error }
    }

    /// This error with the client's names in its text: of the model, which the server may know by another, and of the
    /// limit that the body states.
    pub(crate) fn renamed(mut self, call: &Call<'_>) -> Self {
        let Some(error) = &mut self.client_error else { return self };
        if let Some(upstream) = call.upstream_model {
            error.rename_model(upstream, call.public_model);
        }
        if let Some(stated) = stated_limit(&call.body) {
            let other = if stated == "max_tokens" { "max_completion_tokens" } else { "max_tokens" };
            error.rename_member(other, stated);
        }
        self
    }

    /// The status with which a client is told that its request is at fault. Those about a body pass; what else a model server
    /// may refuse with is between it and us.
    pub fn shown_status(&self) -> u16 {
        match self.kind {
            CallErrorKind::Status(status @ (413 | 422)) => status,
            _ => 400,
        }
    }

    /// What the failure says about the server's health. A connection that breaks is a failure like others: a request can
    /// crash the worker that reads it, or be too large to be read.
    pub(crate) fn outcome(&self) -> Outcome {
        match (self.kind, self.retry) {
            (CallErrorKind::Connect(_), _) => Outcome::Lost,
            (CallErrorKind::Status(429 | 503), Retry::Later(retry_after)) => Outcome::Overloaded { retry_after },
            (CallErrorKind::Status(401 | 407), Retry::OtherReplica) => Outcome::KeyRefused,
            (CallErrorKind::Status(403), Retry::OtherReplica) => Outcome::Forbidden,
            (CallErrorKind::Status(QUOTA), Retry::OtherReplica) => Outcome::QuotaUsedUp,
            // The server works; it is the request that does not, or a model that is not there.
            (CallErrorKind::Status(_), Retry::Never) | (CallErrorKind::Status(408 | 409) | CallErrorKind::Unfit, _) => {
                Outcome::Declined
            }
            _ if self.is_not_served() => Outcome::Declined,
            _ => Outcome::Failed,
        }
    }

    /// Whether the server says that it does not have what it was asked for: the model, or the kind of call.
    pub fn is_not_served(&self) -> bool {
        let CallErrorKind::Status(status) = self.kind else { return false };
        let not_ours = !matches!(status, 401 | 402 | 403 | 407 | 408 | 409);
        self.retry == Retry::OtherReplica && not_ours && (status < 500 || status == 501 || status == 505)
    }

    /// Whether the server itself refuses, at once and whatever the request: trying the next one costs nothing.
    pub fn is_of_server(&self) -> bool {
        self.is_not_served()
            || self.kind == CallErrorKind::Unfit
            || matches!(self.outcome(), Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp)
    }
}

/// `retry-after` in seconds. The form with a date is rare among model servers and is read as unknown.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get("retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let seconds = || headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok();
    millis.map(Duration::from_millis).or_else(|| seconds().map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::call;

    #[test]
    fn a_limit_is_called_as_the_client_called_it() {
        let error = || {
            let body = br#"{"error":{"message":"max_tokens: no","param":"max_tokens"}}"#;
            CallError::refused(StatusCode::BAD_REQUEST, &HeaderMap::new(), body)
        };
        let named = |body| error().renamed(&call(body, false)).client_error.unwrap().param;
        assert_eq!(named(r#"{"max_completion_tokens":1}"#).as_deref(), Some("max_completion_tokens"));
        assert_eq!(named(r#"{"max_tokens":1}"#).as_deref(), Some("max_tokens"));
        assert_eq!(named("{}").as_deref(), Some("max_tokens"));
    }

    #[test]
    fn refusals_are_classified() {
        let check = |status: u16, retry: Retry, shown: bool, outcome: Outcome| {
            let status = StatusCode::from_u16(status).unwrap();
            let error = CallError::refused(status, &HeaderMap::new(), br#"{"error":{"message":"why"}}"#);
            assert_eq!(
                (error.retry, error.client_error.is_some(), error.outcome()),
                (retry, shown, outcome),
                "{status}"
            );
        };
        let overloaded = Outcome::Overloaded { retry_after: None };
        for status in [400, 404, 413, 422] {
            check(status, Retry::Never, true, Outcome::Declined);
        }
        for status in [500, 502, 504] {
            check(status, Retry::OtherReplica, false, Outcome::Failed);
        }
        for status in [401, 407] {
            check(status, Retry::OtherReplica, false, Outcome::KeyRefused);
        }
        check(403, Retry::OtherReplica, false, Outcome::Forbidden);
        check(402, Retry::OtherReplica, false, Outcome::QuotaUsedUp);
        for status in [301, 405, 408, 409, 415, 426, 501] {
            check(status, Retry::OtherReplica, false, Outcome::Declined);
        }
        check(429, Retry::Later(None), false, overloaded);
        check(503, Retry::Later(None), false, overloaded);
    }

    #[test]
    fn retry_after_is_read() {
        let check = |name: &'static str, value: &str, expected: Option<Duration>| {
            let headers = HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())]);
            assert_eq!(retry_after(&headers), expected);
        };
        check("retry-after", "7", Some(Duration::from_secs(7)));
        check("retry-after-ms", "250", Some(Duration::from_millis(250)));
        check("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None);
        check("retry-after", "-1", None);
    }

    #[test]
    fn a_pause_is_obeyed_whatever_the_status() {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static("7"))]);
        let refused = |status| CallError::refused(StatusCode::from_u16(status).unwrap(), &headers, b"");
        for status in [408, 409, 429, 500, 503] {
            assert_eq!(refused(status).retry, Retry::Later(Some(Duration::from_secs(7))), "{status}");
        }
        assert_eq!(refused(400).retry, Retry::Never);
        assert_eq!(refused(409).outcome(), Outcome::Declined, "a race over there is no failure of the server");
        assert_eq!(refused(500).outcome(), Outcome::Failed);
    }

    #[test]
    fn an_account_that_is_used_up_is_no_overload() {
        let body = br#"{"error":{"message":"You exceeded your quota","type":"insufficient_quota","code":null}}"#;
        let error = CallError::refused(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body);
        assert_eq!((error.outcome(), error.retry), (Outcome::QuotaUsedUp, Retry::OtherReplica));
        assert!(error.is_of_server() && error.client_error.is_none());
    }
}
