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

use arguments::{Batch, BatchCancel, BatchList, BatchResults, BatchWatch, Delivery};
use tokio::time::Instant;

use super::Outcome;
use crate::config::Environment;
use follow::{Ended, Follower};
pub use interrupts::Interrupts;
use progress::Progress;
use results::{Form, Sink, Target};
use talk::Client;
pub use talk::ClientError;

/// Where the server is when `BATCHIN_BASE_URL` does not say.
const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8080";

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
    /// `BATCHIN_API_KEY` is not set.
    #[error("set BATCHIN_API_KEY to a key; `batchin key create EMAIL` makes one")]
    NoKey,
    /// `BATCHIN_BASE_URL` is no address of a server.
    #[error("BATCHIN_BASE_URL is no http:// or https:// address")]
    BadBaseUrl,
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
            Self::NoKey | Self::BadBaseUrl | Self::Usage { .. } | Self::Faults { .. } => Outcome::Misused,
            Self::Input { .. } | Self::Spool { .. } | Self::Stopped | Self::Server(_) | Self::Output(_) => {
                Outcome::Failed
            }
        }
    }
}

/// Runs one command.
pub async fn execute(
    command: &Batch,
    environment: &Environment,
    terminal: Terminal<'_>,
) -> Result<Outcome, BatchError> {
    match command {
        Batch::Run(run) => run::run(run, environment, terminal).await,
        Batch::Watch(watch) => self::watch(watch, environment, terminal).await,
        Batch::Results(results) => self::results(results, environment, terminal).await,
        Batch::List(list) => self::list(list, environment, terminal.out).await,
        Batch::Cancel(cancel) => self::cancel(cancel, environment, terminal.out).await,
    }
}

async fn watch(watch: &BatchWatch, environment: &Environment, terminal: Terminal<'_>) -> Result<Outcome, BatchError> {
    let client = connect(environment)?;
    let progress = Progress::new(terminal.is_interactive);
    let (outcome, _) = follow(&client, &watch.id, (&watch.delivery, &progress), terminal).await?;
    Ok(outcome)
}

async fn results(
    results: &BatchResults,
    environment: &Environment,
    terminal: Terminal<'_>,
) -> Result<Outcome, BatchError> {
    let client = connect(environment)?;
    let progress = Progress::quiet();
    let sink = sink(&results.delivery, terminal.out)?;
    Follower::new(&client, &results.id, &progress, sink).fetch(results.after).await?;
    Ok(Outcome::Done)
}

async fn list(list: &BatchList, environment: &Environment, out: &mut dyn Write) -> Result<Outcome, BatchError> {
    let answer = connect(environment)?.list(list.limit, list.offset, &Progress::quiet()).await?;
    let text = if list.json {
        format!("{answer}\n")
    } else {
        show::list(&serde_json::from_str::<Vec<talk::Listed>>(answer.get()).map_err(ClientError::NotUnderstood)?)
    };
    print(out, &text)
}

async fn cancel(cancel: &BatchCancel, environment: &Environment, out: &mut dyn Write) -> Result<Outcome, BatchError> {
    let answer = connect(environment)?.cancel(&cancel.id, &Progress::quiet()).await?;
    let text = if cancel.json {
        format!("{answer}\n")
    } else {
        let answer: serde_json::Value = serde_json::from_str(answer.get()).map_err(ClientError::NotUnderstood)?;
        let stopped =
            answer["stopped_tasks"].as_u64().map_or_else(String::new, |n| format!("; {n} tasks were stopped"));
        format!("{}: {}{stopped}\n", cancel.id, answer["status"].as_str().unwrap_or("cancelled"))
    };
    print(out, &text)
}

/// Follows a batch to its end and says how it was; also what its check found.
async fn follow(
    client: &Client,
    id: &str,
    (delivery, progress): (&Delivery, &Progress),
    mut terminal: Terminal<'_>,
) -> Result<(Outcome, Vec<talk::LineFault>), BatchError> {
    let started = Instant::now();
    let sink = sink(delivery, &mut *terminal.out)?;
    let ended = Follower::new(client, id, progress, sink).follow(&mut terminal.interrupts).await;
    progress.close();
    match ended {
        Ok(Ended::Finished(detail, totals)) => {
            progress.say(&totals.summary(started.elapsed()));
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
        Err(error) => {
            progress.say(&format!("the batch goes on at the server; {}", how_to_watch(id, delivery)));
            Err(error)
        }
    }
}

fn how_to_watch(id: &str, delivery: &Delivery) -> String {
    let out = delivery.out.as_ref().map_or_else(String::new, |out| format!(" --out {}", out.display()));
    let ordered = if delivery.ordered { " --ordered" } else { "" };
    format!("`batchin batch watch {id}{out}{ordered}` follows it")
}

fn sink<'a>(delivery: &Delivery, out: &'a mut dyn Write) -> Result<Sink<'a>, BatchError> {
    let (target, form) = match &delivery.out {
        Some(path) => (Target::File(path.clone()), Form::Json),
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

fn connect(environment: &Environment) -> Result<Client, BatchError> {
    let base_url = environment.value("BATCHIN_BASE_URL").unwrap_or(DEFAULT_BASE_URL);
    let key = environment.value("BATCHIN_API_KEY").ok_or(BatchError::NoKey)?;
    crate::tls::install_crypto_provider();
    Client::new(base_url, key).ok_or(BatchError::BadBaseUrl)
}

fn print(out: &mut dyn Write, text: &str) -> Result<Outcome, BatchError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(BatchError::Output)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests;
