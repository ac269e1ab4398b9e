//! Holds: `batchin batch`: submit a file of tasks to a server, follow it, deliver its results.
//!
//! A client like any other: it speaks the public API with a key and touches no database.

mod client;
mod follow;
mod input;
mod progress;
mod results;

use std::io::{self, Read as _, Write};
use std::time::Duration;

use rand::RngCore as _;
use tokio::time::Instant;

use super::{BatchRun, BatchWatch, Delivery, Outcome};
use crate::config::Environment;
pub use client::ClientError;
use client::{Client, Created};
use follow::{Ended, Interrupts};
use progress::Progress;

/// Where the server is when `BATCHIN_BASE_URL` does not say.
const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8080";

/// What the API takes as one inline batch, in bytes of JSON.
const MAX_INLINE_BYTES: usize = 2_000_000;

/// A larger input is a mistake, or a job for uploads.
const MAX_INPUT_BYTES: u64 = 1_000_000_000;

/// The most faults that are shown; more help nobody.
const MAX_SHOWN_FAULTS: usize = 50;

/// Where commands of this file write; tests give memory.
pub struct Terminal<'a> {
    /// Answers, and nothing else.
    pub out: &'a mut dyn Write,
    /// Progress and messages; whether it is a terminal decides between a bar and lines.
    pub is_interactive: bool,
}

/// Why a run ended before its batch did.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// `BATCHIN_API_KEY` is not set.
    #[error("set BATCHIN_API_KEY to a key; `batchin key create EMAIL` makes one")]
    NoKey,
    /// `BATCHIN_BASE_URL` is no address of a server.
    #[error("BATCHIN_BASE_URL is no http:// or https:// address")]
    BadBaseUrl,
    /// The input cannot be read.
    #[error("cannot read {file}")]
    Input {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The input has faults; nothing was sent.
    #[error("{text}")]
    Faults {
        /// Every fault with its line.
        text: String,
    },
    /// The server refused, or could not be reached for long.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// Results cannot be written.
    #[error("cannot write the results")]
    Output(#[source] io::Error),
}

impl BatchError {
    /// The exit code that fits.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoKey | Self::BadBaseUrl | Self::Faults { .. } => Outcome::Misused,
            Self::Input { .. } | Self::Server(_) | Self::Output(_) => Outcome::Failed,
        }
    }
}

/// Submits a file, follows it to its end and delivers the results. Fails when a task did.
pub async fn run(run: &BatchRun, environment: &Environment, terminal: Terminal<'_>) -> Result<Outcome, BatchError> {
    let client = connect(environment)?;
    let text = read_input(run)?;
    let tasks = input::parse(&text, run.model.as_deref()).map_err(|faults| shown(&run.file.display(), &faults))?;
    let priority = run.priority.map(|priority| priority.to_string());
    let bodies = input::split(&tasks, priority.as_deref(), MAX_INLINE_BYTES);
    let progress = Progress::new(terminal.is_interactive, tasks.len());
    let started = Instant::now();
    let mut ids = Vec::with_capacity(bodies.len());
    let nonce = nonce();
    for (index, body) in bodies.into_iter().enumerate() {
        let Created { id } = client.create(body, &format!("{nonce}-{index}"), &progress).await?;
        progress.say(&format!("submitted batch {id}"));
        ids.push(id);
    }
    finish(&client, &ids, &run.delivery, Following { progress, started, terminal }).await
}

/// Follows batches that were submitted before.
pub async fn watch(
    watch: &BatchWatch,
    environment: &Environment,
    terminal: Terminal<'_>,
) -> Result<Outcome, BatchError> {
    let client = connect(environment)?;
    let following =
        Following { progress: Progress::new(terminal.is_interactive, 0), started: Instant::now(), terminal };
    finish(&client, &watch.ids, &watch.delivery, following).await
}

struct Following<'a> {
    progress: Progress,
    started: Instant,
    terminal: Terminal<'a>,
}

async fn finish(
    client: &Client,
    ids: &[String],
    delivery: &Delivery,
    following: Following<'_>,
) -> Result<Outcome, BatchError> {
    let Following { progress, started, terminal } = following;
    let interrupts = Interrupts { can_ask: terminal.is_interactive && io::IsTerminal::is_terminal(&io::stdin()) };
    let ended = follow::to_the_end(client, ids, &progress, &interrupts).await?;
    let totals = match ended {
        Ended::Finished(totals) => totals,
        Ended::LeftRunning => {
            progress.close();
            progress.say(&format!("still running; `batchin batch watch {}` follows it", ids.join(" ")));
            return Ok(Outcome::Failed);
        }
    };
    progress.close();
    results::deliver(client, ids, delivery, terminal.out).await?;
    progress.say(&totals.summary(started.elapsed()));
    if let Some(out) = &delivery.out {
        progress.say(&format!("results are in {}", out.display()));
    }
    Ok(if totals.is_all_completed() { Outcome::Done } else { Outcome::Failed })
}

fn connect(environment: &Environment) -> Result<Client, BatchError> {
    let base_url = environment.value("BATCHIN_BASE_URL").unwrap_or(DEFAULT_BASE_URL);
    let key = environment.value("BATCHIN_API_KEY").ok_or(BatchError::NoKey)?;
    crate::tls::install_crypto_provider();
    Client::new(base_url, key).ok_or(BatchError::BadBaseUrl)
}

fn read_input(run: &BatchRun) -> Result<String, BatchError> {
    let unreadable = |source| BatchError::Input { file: run.file.display().to_string(), source };
    let mut text = String::new();
    let read = if run.file.as_os_str() == "-" {
        io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(&run.file).and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text))
    };
    let read = read.map_err(unreadable)?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_INPUT_BYTES) {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 GB; split it")));
    }
    Ok(text)
}

fn shown(file: &impl std::fmt::Display, faults: &[input::LineFault]) -> BatchError {
    let mut lines: Vec<String> =
        faults.iter().take(MAX_SHOWN_FAULTS).map(|fault| format!("{file}:{}: {}", fault.line, fault.what)).collect();
    if faults.len() > MAX_SHOWN_FAULTS {
        lines.push(format!("and {} more", faults.len() - MAX_SHOWN_FAULTS));
    }
    lines.push("nothing was sent".to_owned());
    BatchError::Faults { text: lines.join("\n") }
}

/// What makes this run's idempotency keys its own.
fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Doubles from a quarter of a second to ten.
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << attempt.min(6)).min(Duration::from_secs(10))
}

#[cfg(test)]
mod tests;
