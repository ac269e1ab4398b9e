//! Holds: one try: one request to a URL that a customer named, and as little of its answer as is needed.

use std::{error::Error, sync::Arc, time::Duration};

use batchin_domain::{
    Timestamp,
    webhook::{FailureKind, TargetPolicy, TryResult},
};
use reqwest::{
    Client, Response,
    header::{CONTENT_TYPE, HeaderName, RETRY_AFTER},
    redirect,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    payload::Message,
    resolver::{FilteredResolver, Lookup, ResolveFault},
};

/// What one try may take in all: name, connection, request and answer.
const TRY_TIMEOUT: Duration = Duration::from_secs(15);
/// What is read of an answer, so that a receiver can finish sending an ordinary one; nothing of it is kept.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the client that delivers webhooks cannot be set up")]
pub struct SenderError(#[source] reqwest::Error);

/// Sends. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    http: Client,
    policy: Arc<TargetPolicy>,
    patience: Duration,
}

impl Sender {
    /// Sends to where the policy allows. The process has installed a provider for rustls by now: without one this panics.
    pub fn new(policy: TargetPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, SenderError> {
        let policy = Arc::new(policy);
        let resolver = FilteredResolver { lookup, policy: Arc::clone(&policy) };
        let http = Client::builder()
            .user_agent(concat!("batchin-webhooks/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(resolver))
            .https_only(!policy.allow_http)
            // A redirect or a proxy would connect where nobody has looked.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // Every try resolves, and is judged, anew.
            .pool_max_idle_per_host(0)
            // Whatever other crates switch on: an answer is not unpacked.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .build()
            .map_err(SenderError)?;
        Ok(Self { http, policy, patience: TRY_TIMEOUT })
    }

    /// With less patience.
    #[must_use]
    pub fn with_timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// One try. The status alone decides; `now` is what a `Retry-After` with a date is counted from.
    pub async fn send(&self, message: &Message, now: Timestamp) -> TryResult {
        let deadline = Instant::now() + self.patience;
        let Ok(url) = self.policy.check(&message.url) else { return failed(FailureKind::Forbidden) };
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(WEBHOOK_ID, &message.id)
            .header(WEBHOOK_TIMESTAMP, message.timestamp)
            .header(WEBHOOK_SIGNATURE, &message.signature)
            .body(message.body.clone());
        match timeout_at(deadline, request.send()).await {
            Err(_) => failed(FailureKind::TimedOut),
            Ok(Err(cause)) => failed(kind_of(&cause)),
            Ok(Ok(response)) => {
                let result = result_of(&response, now);
                // The receiver has decided; how the rest of its answer goes changes nothing.
                let _ = timeout_at(deadline, drain(response)).await;
                result
            }
        }
    }
}

async fn drain(mut response: Response) {
    let mut read = 0;
    while read < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
    }
}

fn failed(kind: FailureKind) -> TryResult {
    TryResult { status: None, failure: Some(kind), retry_after: None }
}

fn result_of(response: &Response, now: Timestamp) -> TryResult {
    let status = response.status();
    let failure = status.is_redirection().then_some(FailureKind::Redirected);
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.filter(|_| !status.is_success()).and_then(|text| pause_of(text, now));
    TryResult { status: Some(status.as_u16()), failure, retry_after }
}

/// Seconds, or a date.
fn pause_of(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let at = Timestamp::from_seconds(i64::try_from(date.as_secs()).ok()?);
    Some(at.since(now))
}

fn kind_of(cause: &reqwest::Error) -> FailureKind {
    let mut source: Option<&dyn Error> = cause.source();
    while let Some(error) = source {
        match error.downcast_ref::<ResolveFault>() {
            Some(ResolveFault::Forbidden) => return FailureKind::Forbidden,
            Some(ResolveFault::NotFound) => return FailureKind::Unresolved,
            None => source = error.source(),
        }
    }
    if cause.is_timeout() {
        FailureKind::TimedOut
    } else if cause.is_connect() {
        FailureKind::Unreachable
    } else {
        FailureKind::Broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_comes_in_two_forms() {
        let now = Timestamp::parse_rfc3339("2015-10-21T07:27:00Z").unwrap();
        assert_eq!(pause_of("120", now), Some(Duration::from_secs(120)));
        assert_eq!(pause_of("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(pause_of("Wed, 21 Oct 2015 07:26:00 GMT", now), Some(Duration::ZERO));
        for text in ["", "soon", "-1", "1.5"] {
            assert_eq!(pause_of(text, now), None, "{text}");
        }
    }
}
