//! Holds: what is tried again, for how long, and what is final.
//!
//! A lost connection, 408, 429 and 5xx are waited out; a refusal is final.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::reach::{Cause, Contact};
use crate::progress::Progress;

/// The longest `retry-after` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a server that has never answered is tried: it may be starting, or the address is wrong.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// How long a server may stay away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
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
    /// The server could not be reached: for seconds when it never answered, else for long.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why not.
        #[source]
        cause: Cause,
    },
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
    #[error("the server's answer is not understood ({why}); is a batchin server at this address?")]
    NotUnderstood {
        /// Without the names that things have in here.
        why: String,
    },
    /// The converted input cannot be read again.
    #[error("cannot read the converted input")]
    Spool(#[source] std::io::Error),
}

/// One try's failure.
pub(super) enum Failure {
    Final(ClientError),
    Temporary {
        error: ClientError,
        wait: Option<Duration>,
    },
    /// No answer, or half of one.
    Lost(reqwest::Error),
}

/// Counts the tries of one thing, and ends them.
pub(crate) struct Retries {
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
    pub(crate) fn new(patience: Patience) -> Self {
        let patience = match patience {
            Patience::Short => Duration::from_secs(15 * 60),
            Patience::Long => Duration::from_secs(24 * 60 * 60),
        };
        Self { started: Instant::now(), tries: 0, patience }
    }

    /// Waits before the next try, or gives the error back when it has been long enough.
    pub(crate) async fn pause(
        &mut self,
        error: ClientError,
        wait: Option<Duration>,
        progress: &Progress,
    ) -> Result<(), ClientError> {
        if self.started.elapsed() > self.patience {
            return Err(error);
        }
        match &error {
            ClientError::Unreachable { address, cause } => {
                progress.trouble("no connection", &format!("no connection to {address}: {cause}"));
            }
            ClientError::Unavailable { status, message } => {
                progress.trouble("busy", &format!("the server is busy ({status}: {message})"));
            }
            other => progress.trouble("other", &other.to_string()),
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.tries.min(6)).min(LONGEST_PAUSE);
        tokio::time::sleep(wait.unwrap_or(doubled)).await;
        self.tries += 1;
        Ok(())
    }
}

/// Tries until there is an answer, a refusal, or nothing for too long.
pub(super) async fn persist<T>(
    attempt: impl AsyncFn() -> Result<T, Failure>,
    contact: &Contact,
    patience: Patience,
    progress: &Progress,
) -> Result<T, ClientError> {
    let mut retries = Retries::new(patience);
    loop {
        match attempt().await {
            Ok(answer) => {
                contact.make();
                progress.trouble_over();
                return Ok(answer);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Temporary { error, wait }) => {
                contact.make();
                retries.pause(error, wait, progress).await?;
            }
            Err(Failure::Lost(error)) => {
                let error = unreachable(contact, &error);
                let is_hopeless = matches!(&error, ClientError::Unreachable { cause, .. } if cause.is_lasting())
                    || retries.started.elapsed() > FIRST_CONTACT;
                if is_hopeless && !contact.is_made() {
                    return Err(error);
                }
                retries.pause(error, None, progress).await?;
            }
        }
    }
}

pub(super) fn unreachable(contact: &Contact, error: &reqwest::Error) -> ClientError {
    ClientError::Unreachable { address: contact.address().to_owned(), cause: Cause::of(error) }
}

pub(crate) fn understood<T: DeserializeOwned>(answer: &RawValue) -> Result<T, ClientError> {
    serde_json::from_str(answer.get()).map_err(|error| not_understood(&error))
}

/// serde's words without the names that things have in here.
pub(crate) fn not_understood(error: &serde_json::Error) -> ClientError {
    let text = error.to_string();
    let why = match error.classify() {
        serde_json::error::Category::Data => text.split(", expected ").next().unwrap_or_default().to_owned(),
        _ => "it is not JSON".to_owned(),
    };
    ClientError::NotUnderstood { why }
}

pub(super) async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let response = accepted(request).await?;
    let bytes = response.bytes().await.map_err(Failure::Lost)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Final(not_understood(&error)))
}

pub(super) async fn accepted(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await.map_err(Failure::Lost)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let (wait, moved) = (retry_after(&response), moved_to(&response));
    let bytes = response.bytes().await.map_err(Failure::Lost)?;
    let reason = || status.canonical_reason().unwrap_or("no reason given").to_owned();
    let message = match (serde_json::from_slice::<ErrorAnswer>(&bytes), moved) {
        (Ok(body), _) => body.error.message,
        (Err(_), Some(place)) => format!("it is at {place}; give that as --base-url or BATCHIN_BASE_URL"),
        (Err(_), None) => reason(),
    };
    let status_code = status.as_u16();
    let is_temporary =
        status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(if is_temporary && status != StatusCode::NOT_IMPLEMENTED {
        Failure::Temporary { error: ClientError::Unavailable { status: status_code, message }, wait }
    } else {
        Failure::Final(ClientError::Refused { status: status_code, message })
    })
}

/// Where a redirection leads: followed, it would make a GET of a POST.
fn moved_to(response: &Response) -> Option<String> {
    let place = response.headers().get("location").filter(|_| response.status().is_redirection())?;
    place.to_str().ok().map(str::to_owned)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}
