//! Holds: `batchin batch`: submit a file of tasks to a server, follow it, deliver its results.
//!
//! A client like any other: it speaks the public API with a key and touches no database. `read` and `prepare` read,
//! `talk` and `submit` talk, `progress`, `show` and `results` show.

pub mod arguments;
mod follow;
mod interrupts;
mod prepare;
mod progress;
mod read;
mod results;
mod run;
mod show;
mod submit;
mod talk;
mod totals;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arguments::{Batch, BatchCancel, BatchCommand, BatchList, BatchResults, BatchWatch, Connection, Delivery};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout};

use super::Outcome;
use crate::config::Environment;
use follow::{Ended, Follower};
pub use interrupts::Interrupts;
use progress::Progress;
use results::{Form, OutError, OutFile, Sink, Target};
pub use talk::ClientError;
use talk::{Client, SetupError};

/// Where the server is when `BATCHIN_BASE_URL` does not say.
const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8080";

/// How long a word about results that are delivered already may take.
const AFTERWORD: Duration = Duration::from_secs(5);

/// Where the converted input and results that wait for their turn may lie: `/tmp` is often memory.
const SPOOL_FOLDER: &str = "/var/tmp";

/// What a command of this file has around it; tests give their own.
pub struct Terminal<'a> {
    /// Answers, and nothing else.
    pub out: &'a mut dyn Write,
    /// Whether progress goes to a terminal: a bar, or lines.
    pub is_interactive: bool,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There is no key.
    #[error("set BATCHIN_API_KEY to a key, or give --api-key; `batchin key create EMAIL` makes one")]
    NoKey,
    /// The address, the key or the certificates are none.
    #[error(transparent)]
    Setup(SetupError),
    /// The file of `--cacert` is none.
    #[error("--cacert: cannot use {file}")]
    Certificates {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of `--out` cannot be opened; nothing was sent.
    #[error("--out: cannot write {file}")]
    Out {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: OutError,
    },
    /// The arguments do not go together.
    #[error("{text}")]
    Usage {
        /// What does not, and what would.
        text: String,
    },
    /// The input cannot be read.
    #[error("cannot read {file}")]
    Input {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The converted input cannot be kept.
    #[error("cannot write temporary files to {folder}; TMPDIR names another folder")]
    Spool {
        /// Where.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The input has faults.
    #[error("{text}")]
    Faults {
        /// Every fault with its line.
        text: String,
    },
    /// Ctrl-C before the batch had an id.
    #[error("stopped while submitting; `batchin batch list` shows whether the batch was made")]
    Stopped,
    /// The server refused, or could not be reached for long.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// What is written cannot be written.
    #[error("cannot write the results")]
    Output(#[source] io::Error),
}

impl BatchError {
    /// The exit code that fits.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoKey
            | Self::Setup(_)
            | Self::Certificates { .. }
            | Self::Out { .. }
            | Self::Usage { .. }
            | Self::Faults { .. } => Outcome::Misused,
            Self::Input { source, .. } if is_of_the_name(source) => Outcome::Misused,
            Self::Input { .. } | Self::Spool { .. } | Self::Stopped | Self::Server(_) | Self::Output(_) => {
                Outcome::Failed
            }
        }
    }
}

/// What the operating system says of a name that was mistyped.
fn is_of_the_name(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

/// Runs one command.
pub async fn execute(
    BatchCommand { connection, command }: &BatchCommand,
    environment: &Environment,
    terminal: Terminal<'_>,
) -> Result<Outcome, BatchError> {
    let client = connect(connection, environment)?;
    match command {
        Batch::Run(run) => run::run(&client, run, terminal).await,
        Batch::Watch(watch) => self::watch(&client, watch, terminal).await,
        Batch::Results(results) => self::results(&client, results, terminal).await,
        Batch::List(list) => self::list(&client, list, terminal.out).await,
        Batch::Cancel(cancel) => self::cancel(&client, cancel, terminal.out).await,
    }
}

async fn watch(client: &Client, watch: &BatchWatch, terminal: Terminal<'_>) -> Result<Outcome, BatchError> {
    let out = open(&watch.delivery)?;
    let progress = Progress::new(terminal.is_interactive);
    let (outcome, _) = follow(client, &watch.id, (&watch.delivery, out, &progress), terminal).await?;
    Ok(outcome)
}

async fn results(client: &Client, results: &BatchResults, terminal: Terminal<'_>) -> Result<Outcome, BatchError> {
    let out = open(&results.delivery)?;
    let progress = Progress::quiet();
    let sink = sink(&results.delivery, out, terminal.out)?;
    Follower::new(client, &results.id, &progress, sink).fetch(results.after).await?;
    // They are delivered; whether they are all there will be is a word to the person, and no reason to fail.
    if let Ok(Ok(detail)) = timeout(AFTERWORD, client.detail(&results.id, &progress)).await
        && let Some(why) = why_it_ended(detail.ended_early.as_deref())
    {
        progress.say(&format!("the batch ended before all its tasks had run: {why}"));
    }
    Ok(Outcome::Done)
}

async fn list(client: &Client, list: &BatchList, out: &mut dyn Write) -> Result<Outcome, BatchError> {
    let start = list.after.map_or_else(|| format!("offset={}", list.offset), |after| format!("after={after}"));
    let answer = client.list(list.limit, &start, &Progress::quiet()).await?;
    let text = if list.json {
        format!("{answer}\n")
    } else {
        show::list(&understood::<Vec<talk::Listed>>(&answer)?, list.limit)
    };
    print(out, &text)
}

async fn cancel(client: &Client, cancel: &BatchCancel, out: &mut dyn Write) -> Result<Outcome, BatchError> {
    let answer = client.cancel(&cancel.id, &Progress::quiet()).await?;
    let text = if cancel.json {
        format!("{answer}\n")
    } else {
        let answer: serde_json::Value = understood(&answer)?;
        let stopped = match answer["stopped_tasks"].as_u64() {
            None => String::new(),
            Some(1) => "; 1 task was stopped".to_owned(),
            Some(n) => format!("; {n} tasks were stopped"),
        };
        format!("{}: {}{stopped}\n", cancel.id, answer["status"].as_str().unwrap_or("cancelled"))
    };
    print(out, &text)
}

fn understood<T: serde::de::DeserializeOwned>(answer: &serde_json::value::RawValue) -> Result<T, ClientError> {
    serde_json::from_str(answer.get()).map_err(|error| talk::not_understood(&error))
}

/// Why a batch ended before all its tasks had run, in a person's words.
fn why_it_ended(ended_early: Option<&str>) -> Option<String> {
    match ended_early? {
        "max_cost_reached" => Some("the next task could cost more than is left of --max-cost-cents".to_owned()),
        "expired" => Some("its --window is over".to_owned()),
        "cancelled" => Some("it was cancelled".to_owned()),
        other => Some(other.replace('_', " ")),
    }
}

/// Follows a batch to its end and says how it was; also what its check found.
async fn follow(
    client: &Client,
    id: &str,
    (delivery, out, progress): (&Delivery, Option<OutFile>, &Progress),
    mut terminal: Terminal<'_>,
) -> Result<(Outcome, Vec<talk::LineFault>), BatchError> {
    let started = Instant::now();
    let sink = sink(delivery, out, &mut *terminal.out)?;
    let ended = Follower::new(client, id, progress, sink).follow(&mut terminal.interrupts).await;
    progress.close();
    match ended {
        Ok(Ended::Finished(detail, totals)) => {
            progress.say(&totals.summary(started.elapsed()));
            if let Some(why) = why_it_ended(totals.ended_early.as_deref()) {
                progress.say(&format!("the batch ended before all its tasks had run: {why}"));
            }
            if let Some(out) = &delivery.out {
                progress.say(&format!("results are in {}", out.display()));
                if delivery.json {
                    print(terminal.out, &format!("{}\n", totals.json(id)))?;
                }
            }
            let outcome = if totals.is_all_completed() { Outcome::Done } else { Outcome::Failed };
            Ok((outcome, detail.faults.unwrap_or_default()))
        }
        Ok(Ended::Detached) => {
            progress.say(&format!("left running; {}", how_to_watch(id, delivery)));
            Ok((Outcome::Failed, Vec::new()))
        }
        // There is no such batch, or it is somebody else's.
        Err(error @ BatchError::Server(ClientError::Refused { .. })) => Err(error),
        Err(error) => {
            progress.say(&format!("the batch goes on at the server; {}", how_to_watch(id, delivery)));
            Err(error)
        }
    }
}

fn how_to_watch(id: &str, delivery: &Delivery) -> String {
    let out = delivery.out.as_ref().map_or_else(String::new, |out| format!(" --out {}", out.display()));
    let force = if delivery.force { " --force" } else { "" };
    let ordered = if delivery.ordered { " --ordered" } else { "" };
    format!("`batchin batch watch {id}{out}{force}{ordered}` follows it")
}

/// The file of `--out`, if there is one: opened before anything is sent.
fn open(delivery: &Delivery) -> Result<Option<OutFile>, BatchError> {
    let Some(path) = &delivery.out else { return Ok(None) };
    let opened = OutFile::open(path, delivery.force);
    opened.map(Some).map_err(|source| BatchError::Out { file: path.display().to_string(), source })
}

fn sink<'a>(delivery: &Delivery, file: Option<OutFile>, out: &'a mut dyn Write) -> Result<Sink<'a>, BatchError> {
    let (target, form) = match file {
        Some(file) => (Target::File(file), Form::Json),
        None if delivery.json => (Target::Stream(out), Form::Json),
        None => (Target::Stream(out), Form::Text),
    };
    Sink::new(target, form, delivery.ordered, &spool_folder()).map_err(BatchError::Output)
}

/// `TMPDIR` where it is set, else a folder on a disk.
fn spool_folder() -> PathBuf {
    let default = std::env::temp_dir();
    let is_default = default == Path::new("/tmp") && Path::new(SPOOL_FOLDER).is_dir();
    if is_default { PathBuf::from(SPOOL_FOLDER) } else { default }
}

fn connect(connection: &Connection, environment: &Environment) -> Result<Client, BatchError> {
    let base_url = connection.base_url.as_deref().or_else(|| environment.value("BATCHIN_BASE_URL"));
    let key = connection.api_key.clone().or_else(|| environment.value("BATCHIN_API_KEY").map(SecretString::from));
    let key = key.map(trimmed).ok_or(BatchError::NoKey)?;
    crate::tls::install_crypto_provider();
    let trusted = connection.cacert.as_deref().map_or(Ok(Vec::new()), certificates)?;
    Client::new(base_url.unwrap_or(DEFAULT_BASE_URL).trim(), key, trusted).map_err(BatchError::Setup)
}

/// Keys that come out of files have line breaks at their ends.
fn trimmed(key: SecretString) -> SecretString {
    SecretString::from(key.expose_secret().trim())
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, BatchError> {
    let unusable = |source| BatchError::Certificates { file: path.display().to_string(), source };
    let text = std::fs::read(path).map_err(unusable)?;
    match reqwest::Certificate::from_pem_bundle(&text) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(unusable(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate in PEM"))),
    }
}

fn print(out: &mut dyn Write, text: &str) -> Result<Outcome, BatchError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(BatchError::Output)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests;
