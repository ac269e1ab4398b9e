//! Holds: the calls of the public API that a batch run makes, repeated until the server answers.
//!
//! A lost connection, 429 and 5xx are waited out; a refusal is final. Creating carries an idempotency key, so that
//! asking again after a lost answer creates nothing twice.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;
use url::Url;

use super::backoff;
use super::progress::Progress;

/// How long a server may stay away before a run gives up. It can be taken up again with `batch watch`.
const MAX_OUTAGE: Duration = Duration::from_secs(15 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest `retry-after` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said no.
    #[error("the server refused with {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The server could not be reached for a quarter of an hour.
    #[error("the server could not be reached for {} minutes", MAX_OUTAGE.as_secs() / 60)]
    Unreachable(#[source] reqwest::Error),
    /// The server answered only with temporary errors for a quarter of an hour.
    #[error("the server answered {status} for {} minutes: {message}", MAX_OUTAGE.as_secs() / 60)]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer is not of the documented form.
    #[error("the server's answer is not understood; is BATCHIN_BASE_URL a batchin server?")]
    NotUnderstood(#[source] serde_json::Error),
    /// Results could not be kept on this machine.
    #[error("cannot keep the results in a temporary file")]
    Spool(#[source] std::io::Error),
}

/// One try's failure.
enum Failure {
    Final(ClientError),
    Temporary { error: ClientError, wait: Option<Duration> },
}

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: SecretString,
}

/// The answer to `POST /v1/batches`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Created {
    pub id: String,
}

/// The answer to `GET /v1/batches/{id}`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    pub status: String,
    pub total_tasks: u64,
    pub completed_tasks: u64,
    pub failed_tasks: u64,
    pub cost_cents: Option<Box<RawValue>>,
    pub usage: Option<Usage>,
    #[serde(default)]
    pub tasks: Vec<TaskDetail>,
    pub blocked: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TaskDetail {
    pub cost_cents: Option<Box<RawValue>>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

impl Client {
    /// None when `base_url` is no address; `/v1` at its end is allowed.
    pub(super) fn new(base_url: &str, key: &str) -> Option<Self> {
        let url = Url::parse(base_url).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let base = base_url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build().ok()?;
        Some(Self { http, base, key: SecretString::from(key) })
    }

    pub(super) async fn create(&self, body: String, key: &str, progress: &Progress) -> Result<Created, ClientError> {
        let body = bytes_of(body);
        let is_repeated = std::cell::Cell::new(false);
        let attempt = async || {
            let request = self
                .request(Method::POST, "/v1/batches")
                .header("content-type", "application/json")
                .header("idempotency-key", key)
                .body(body.clone());
            // The first try may still be under way on the server; then the second gets 409 until it is done.
            match answer(request).await {
                Err(Failure::Final(error @ ClientError::Refused { status: 409, .. })) if is_repeated.get() => {
                    Err(Failure::Temporary { error, wait: None })
                }
                other => {
                    is_repeated.set(true);
                    other
                }
            }
        };
        persist(attempt, progress).await
    }

    pub(super) async fn detail(&self, id: &str, progress: &Progress) -> Result<Detail, ClientError> {
        persist(async || answer(self.request(Method::GET, &format!("/v1/batches/{id}"))).await, progress).await
    }

    pub(super) async fn cancel(&self, id: &str, progress: &Progress) -> Result<(), ClientError> {
        let path = format!("/v1/batches/{id}/cancel");
        let attempt = async || accepted(self.request(Method::POST, &path)).await;
        match persist(attempt, progress).await {
            // It ended in the meantime.
            Err(ClientError::Refused { status: 409, .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// All result lines, in a file that nobody else sees, at its beginning.
    pub(super) async fn results(&self, id: &str, progress: &Progress) -> Result<File, ClientError> {
        let path = format!("/v1/batches/{id}/results");
        persist(async || spool(accepted(self.request(Method::GET, &path)).await?).await, progress).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose_secret())
    }
}

fn bytes_of(body: String) -> bytes::Bytes {
    bytes::Bytes::from(body)
}

/// Tries until there is an answer, a refusal, or nothing for too long.
async fn persist<T>(attempt: impl AsyncFn() -> Result<T, Failure>, progress: &Progress) -> Result<T, ClientError> {
    let mut tries = 0;
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(answer) => {
                if tries > 0 {
                    progress.trouble_over();
                }
                return Ok(answer);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Temporary { error, .. }) if started.elapsed() > MAX_OUTAGE => return Err(error),
            Err(Failure::Temporary { error, wait }) => {
                progress.trouble(match &error {
                    ClientError::Unreachable(_) => "no connection",
                    _ => "the server is busy",
                });
                tokio::time::sleep(wait.unwrap_or_else(|| backoff(tries))).await;
                tries += 1;
            }
        }
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let response = accepted(request).await?;
    let bytes = response.bytes().await.map_err(lost)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Final(ClientError::NotUnderstood(error)))
}

async fn accepted(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await.map_err(lost)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let wait = retry_after(&response);
    let bytes = response.bytes().await.map_err(lost)?;
    let message = serde_json::from_slice::<ErrorAnswer>(&bytes)
        .map_or_else(|_| status.canonical_reason().unwrap_or("no reason given").to_owned(), |body| body.error.message);
    let status_code = status.as_u16();
    let is_temporary =
        status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(if is_temporary {
        Failure::Temporary { error: ClientError::Unavailable { status: status_code, message }, wait }
    } else {
        Failure::Final(ClientError::Refused { status: status_code, message })
    })
}

async fn spool(response: Response) -> Result<File, Failure> {
    let broken = |error| Failure::Final(ClientError::Spool(error));
    let mut file = tempfile::tempfile().map_err(broken)?;
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        file.write_all(&part.map_err(lost)?).map_err(broken)?;
    }
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    Ok(file)
}

fn lost(error: reqwest::Error) -> Failure {
    Failure::Temporary { error: ClientError::Unreachable(error), wait: None }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}
