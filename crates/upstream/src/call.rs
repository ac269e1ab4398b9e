//! Holds: one call to a model server: what goes in, what comes back, and what each failure means for the next step.
//!
//! Classification is data; whether to retry is the caller's decision.

use std::{fmt, io, time::Duration};

use batchin_openai::{Endpoint, Limit, Rewrite, UpstreamError, Usage, rewrite, stated_limit, upstream_error_message};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use crate::{
    breaker::{Asker, Outcome},
    config::UpstreamConfig,
    dialect::{Kind, PriorityOrder},
    events::{Events, StreamError},
    learnt::Manner,
    refusal::{About, about, is_quota},
};

/// Most bytes of an answer that is not streamed: 2048 embeddings of 4096 numbers as text stay below.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The status of a server that wants to be paid.
const QUOTA: u16 = 402;

/// One request for a model server, checked by [`batchin_openai::peek`] before.
#[derive(Clone)]
pub struct Call<'a> {
    /// Which call.
    pub endpoint: Endpoint,
    /// The client's body; it is copied only where it must be changed.
    pub body: Bytes,
    /// The server's own name of the model, where it differs from the client's.
    pub upstream_model: Option<&'a str>,
    /// The id that the client sees, such as `chatcmpl_…`.
    pub public_id: String,
    /// The model's name that the client sees.
    pub public_model: &'a str,
    /// Whether the answer is streamed. The body's own `stream` is set to this.
    pub stream: bool,
    /// Whether the client asked for usage in its stream. Without, no chunk without choices leaves, and no usage.
    pub include_usage: bool,
    /// Whether it asked for counts in every chunk.
    pub continuous_usage: bool,
    /// Answers that the body asks for, over all its prompts: a stream that just ends must have had so many.
    pub answers: u32,
    /// Passed on as `x-request-id`.
    pub request_id: String,
    /// Lower is sooner. Sent to servers that were started with priority scheduling, in their own order.
    pub class_priority: Option<i32>,
    /// The most tokens that are held for a choice, which a body that states more or nothing is cut to; `None` where the
    /// body's own limit, if it has one, is held.
    pub max_tokens: Option<u32>,
    /// The most tokens that a choice may have whatever the prompt leaves of the context. Told where the body states no
    /// limit to servers that take one which does not fit behind the prompt.
    pub held: Option<u32>,
    /// Who asks, for what the server's failures are evidence of.
    pub asker: Asker,
}

impl Call<'_> {
    /// The server's own name of the model.
    pub(crate) fn model(&self) -> &str {
        self.upstream_model.unwrap_or(self.public_model)
    }

    /// The most tokens that a server of this kind is told.
    pub(crate) fn most(&self, kind: Kind) -> Option<u32> {
        self.max_tokens.or(self.held.filter(|_| kind.takes_any_limit()))
    }
}

/// The body is a customer's text and stays out of debug prints.
impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("endpoint", &self.endpoint)
            .field("public_id", &self.public_id)
            .field("stream", &self.stream)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What a successful call brings.
#[derive(Debug)]
pub enum Answer {
    /// The whole answer.
    Whole {
        /// Always a success.
        status: StatusCode,
        /// With the public id and model.
        body: Bytes,
        /// What the server counted, when it says so.
        usage: Option<Usage>,
        /// Bytes of text in it, as in [`WholeAnswer`](batchin_openai::WholeAnswer).
        text_bytes: u64,
    },
    /// A stream whose first event has arrived and is no error.
    Events(Box<Events>),
}

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
    #[error("no connection to the model server ({0})")]
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
    /// More than [`MAX_ANSWER_BYTES`].
    #[error("the model server's answer is too large")]
    TooLarge,
    /// Not asked at all: the breaker is open or cooling down.
    #[error("the model server is not being asked after failures")]
    Unavailable,
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
        match error.status {
            Some(status) => Self::of(status, error, None),
            None => Self::other_replica(CallErrorKind::BadAnswer),
        }
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

    /// This error with the client's names in its text: of the model, and of the limit that it sent.
    pub(crate) fn renamed(mut self, call: &Call<'_>) -> Self {
        if let (Some(error), Some(upstream)) = (&mut self.client_error, call.upstream_model) {
            error.rename_model(upstream, call.public_model);
        }
        if let (Some(error), Some(stated)) = (&mut self.client_error, stated_limit(&call.body)) {
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
            (CallErrorKind::Status(_), Retry::Never) | (CallErrorKind::Status(408 | 409), _) => Outcome::Declined,
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
            || matches!(self.outcome(), Outcome::KeyRefused | Outcome::Forbidden | Outcome::QuotaUsedUp)
    }
}

/// `retry-after` in seconds. The form with a date is rare among model servers and is read as unknown.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get("retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let seconds = || headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok();
    millis.map(Duration::from_millis).or_else(|| seconds().map(Duration::from_secs))
}

/// Whether counts are asked for in every chunk, so that an answer which breaks off is billed by its server's own count. Of
/// several answers, vLLM would count each for itself; the embedded engine counts all of them together.
pub(crate) const fn counts_all_along(call: &Call<'_>, kind: Kind) -> bool {
    kind.counts_all_along() && (call.answers == 1 || matches!(kind, Kind::Embedded))
}

/// The body as this upstream wants it.
pub(crate) fn request_body(call: &Call<'_>, config: &UpstreamConfig, manner: Manner) -> Bytes {
    let kind = config.kind;
    let generates = call.endpoint.generates();
    let priority = call.class_priority.filter(|_| manner.priority && generates);
    let is_counted = call.stream && generates;
    let edit = Rewrite {
        model: call.upstream_model,
        stream: generates.then_some(call.stream),
        include_usage: is_counted && manner.stream_options,
        continuous_usage: is_counted && manner.stream_options && counts_all_along(call, kind),
        limit: generates.then_some(Limit { name: manner.limit, most: call.most(kind), least: kind.least_limit() }),
        priority: priority.and_then(|priority| match kind.priority_order() {
            PriorityOrder::LowerFirst => Some(priority),
            PriorityOrder::HigherFirst => Some(priority.saturating_neg()),
            PriorityOrder::None => None,
        }),
        defaults: if manner.defaults { kind.defaults(call.endpoint) } else { &[] },
        remove: if manner.stream_options { &[] } else { &["stream_options"] },
        tidy: true,
        drop_nulls: kind.drops_nulls(),
    };
    rewrite(&call.body, &edit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchin_openai::LimitName;

    use crate::{dialect::Kind, learnt::Lessons};

    fn call(body: &'static str, stream: bool) -> Call<'static> {
        Call {
            endpoint: Endpoint::Chat,
            body: Bytes::from_static(body.as_bytes()),
            upstream_model: None,
            public_id: "chatcmpl_1".into(),
            public_model: "m",
            stream,
            include_usage: false,
            continuous_usage: false,
            answers: 1,
            request_id: "r".into(),
            class_priority: Some(5),
            max_tokens: None,
            held: None,
            asker: Asker::default(),
        }
    }

    fn config(kind: Kind, priority_enabled: bool) -> UpstreamConfig {
        UpstreamConfig { priority_enabled, ..UpstreamConfig::new("a", kind, "http://h").unwrap() }
    }

    /// The body as it goes to a server of this kind.
    fn sent(kind: Kind, priority_enabled: bool, call: &Call<'_>) -> Bytes {
        let config = config(kind, priority_enabled);
        request_body(call, &config, Lessons::default().tries(call, &config).manner)
    }

    #[test]
    fn body_fits_the_kind() {
        let check = |kind, enabled, stream, body, expected: &str| {
            assert_eq!(sent(kind, enabled, &call(body, stream)), expected);
        };
        check(Kind::OpenAi, true, false, r#"{"model":"m","priority":1}"#, r#"{"model":"m"}"#);
        check(Kind::Vllm, false, false, r#"{"model":"m","priority":-9}"#, r#"{"model":"m"}"#);
        check(Kind::Vllm, true, false, r#"{"model":"m","priority":-9}"#, r#"{"model":"m","priority":5}"#);
        check(Kind::Sglang, true, false, r#"{"model":"m"}"#, r#"{"model":"m","priority":-5}"#);
        check(Kind::LlamaCpp, true, false, r#"{"suffix":null,"n_predict":9,"best_of":null,"a":1}"#, r#"{"a":1}"#);
        let asked = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        check(Kind::OpenAi, true, true, "{\"stream\":true}", asked);
        let untouched = call(asked, true);
        assert_eq!(sent(Kind::OpenAi, false, &untouched).as_ptr(), untouched.body.as_ptr());
    }

    #[test]
    fn counts_of_several_answers_are_asked_for_where_they_are_sums() {
        for (kind, of_one, of_more) in
            [(Kind::Embedded, true, true), (Kind::Vllm, true, false), (Kind::OpenAi, false, false)]
        {
            for (answers, expected) in [(1, of_one), (2, of_more)] {
                let body = sent(kind, false, &Call { answers, ..call("{}", true) });
                let asked = String::from_utf8_lossy(&body).contains("continuous_usage_stats");
                assert_eq!(asked, expected, "{kind}, {answers}");
            }
        }
    }

    #[test]
    fn every_kind_is_told_the_held_limit_and_nothing_that_steers() {
        for kind in Kind::ALL {
            let body = r#"{"max_completion_tokens":7,"service_tier":"flex","options":{"num_predict":9},"x-batchin-class":"high","n_predict":9,"keep_alive":"9h"}"#;
            assert_eq!(sent(kind, false, &call(body, false)), r#"{"max_tokens":7}"#, "{kind}");
            let held = Call { max_tokens: Some(5), ..call(r#"{"max_tokens":9,"max_completion_tokens":7}"#, false) };
            assert_eq!(sent(kind, false, &held), r#"{"max_tokens":5}"#, "{kind}");
            let unstated = Call { held: Some(5), ..call("{}", false) };
            let any = if kind.takes_any_limit() { r#"{"max_tokens":5}"# } else { "{}" };
            assert_eq!(sent(kind, false, &unstated), any, "{kind}");
            let none = Call { endpoint: Endpoint::Completions, ..call(r#"{"max_tokens":0,"suffix":""}"#, false) };
            let told = if kind == Kind::Ollama { 1 } else { 0 };
            assert_eq!(sent(kind, false, &none), format!(r#"{{"max_tokens":{told},"suffix":""}}"#), "{kind}");
            let embeddings = Call { endpoint: Endpoint::Embeddings, ..call(r#"{"input":"a","priority":1}"#, false) };
            assert_eq!(sent(kind, false, &embeddings), r#"{"input":"a"}"#, "{kind}");
        }
    }

    #[test]
    fn settings_name_the_limit_and_spare_stream_options() {
        let told = |limit_name, stream_options, call: &Call<'_>| {
            let config = UpstreamConfig { limit_name, stream_options, ..config(Kind::OpenAi, false) };
            request_body(call, &config, Lessons::default().tries(call, &config).manner)
        };
        let chat = call(r#"{"max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#, true);
        let asked = r#"{"stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":7}"#;
        assert_eq!(told(LimitName::MaxCompletionTokens, true, &chat), asked);
        assert_eq!(told(LimitName::None, false, &chat), r#"{"stream":true}"#);
        let completion = Call { endpoint: Endpoint::Completions, ..call(r#"{"prompt":"a","max_tokens":7}"#, false) };
        assert_eq!(told(LimitName::MaxCompletionTokens, true, &completion), completion.body);
    }

    #[test]
    fn sglang_completions_get_an_empty_suffix() {
        let completions = |body| Call { endpoint: Endpoint::Completions, ..call(body, false) };
        let check = |body, expected: &str| assert_eq!(sent(Kind::Sglang, false, &completions(body)), expected);
        check(r#"{"prompt":"a"}"#, r#"{"prompt":"a","suffix":""}"#);
        check(r#"{"prompt":"a","suffix":"z"}"#, r#"{"prompt":"a","suffix":"z"}"#);
    }

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

    #[test]
    fn debug_hides_the_body() {
        let shown = format!("{:?}", call("{\"messages\":\"secret\"}", false));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
