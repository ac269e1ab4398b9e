//! Holds: what is tried again, for how long, and what is final.
//!
//! A lost connection, 408, 429 and 5xx are waited out; a refusal is final.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::cli::batch::progress::Progress;

/// The longest `retry-after` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a server may stay away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::batch) enum Patience {
    /// Somebody waits in front of the screen: a quarter of an hour.
    Short,
    /// The batch runs anyway, and the network may come back tomorrow: a day.
    Long,
}

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
    /// The server could not be reached for long.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// An upload stood still.
    #[error("the upload stands still")]
    Stalled,
    /// The server answered only with temporary errors for long.
    #[error("the server keeps answering {status}: {message}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer is not of the documented form.
    #[error("the server's answer is not understood; is BATCHIN_BASE_URL a batchin server?")]
    NotUnderstood(#[source] serde_json::Error),
    /// The converted input cannot be read again.
    #[error("cannot read the converted input")]
    Spool(#[source] std::io::Error),
}

/// One try's failure.
pub(super) enum Failure {
    Final(ClientError),
    Temporary { error: ClientError, wait: Option<Duration> },
}

/// Counts the tries of one thing, and ends them.
pub(in crate::cli::batch) struct Retries {
    started: Instant,
    tries: u32,
    patience: Duration,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

impl Retries {
    pub(in crate::cli::batch) fn new(patience: Patience) -> Self {
        let patience = match patience {
            Patience::Short => Duration::from_secs(15 * 60),
            Patience::Long => Duration::from_secs(24 * 60 * 60),
        };
        Self { started: Instant::now(), tries: 0, patience }
    }

    /// Waits before the next try, or gives the error back when it has been long enough.
    pub(in crate::cli::batch) async fn pause(
        &mut self,
        error: ClientError,
        wait: Option<Duration>,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        if self.started.elapsed() > self.patience {
            return Err(error);
        }
        progress.trouble(match &error {
            ClientError::Unavailable { .. } => "the server is busy",
            _ => "no connection",
        });
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.tries.min(6)).min(LONGEST_PAUSE);
        tokio::time::sleep(wait.unwrap_or(doubled)).await;
        self.tries += 1;
        Ok(())
    }
}

/// Tries until there is an answer, a refusal, or nothing for too long.
pub(super) async fn persist<T>(
    attempt: impl AsyncFn() -> Result<T, Failure>,
    patience: Patience,
    progress: &Progress,
) -> Result<T, ClientError> {
    let mut retries = Retries::new(patience);
    loop {
        match attempt().await {
            Ok(answer) => {
                progress.trouble_over();
                return Ok(answer);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Temporary { error, wait }) => retries.pause(error, wait, progress).await?,
        }
    }
}

pub(super) async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let response = accepted(request).await?;
    let bytes = response.bytes().await.map_err(lost)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Final(ClientError::NotUnderstood(error)))
}

pub(super) async fn accepted(request: RequestBuilder) -> Result<Response, Failure> {
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
    Err(if is_temporary && status != StatusCode::NOT_IMPLEMENTED {
        Failure::Temporary { error: ClientError::Unavailable { status: status_code, message }, wait }
    } else {
        Failure::Final(ClientError::Refused { status: status_code, message })
    })
}

pub(super) fn lost(error: reqwest::Error) -> Failure {
    Failure::Temporary { error: ClientError::Unreachable(error), wait: None }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}
