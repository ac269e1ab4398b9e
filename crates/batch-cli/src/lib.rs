//! Holds: `batchin batch`: submit a file of tasks to a server, follow it, deliver its results.
//!
//! A client like any other: it speaks the public API with a key and touches no database. `read` and `prepare` read,
//! `talk` and `submit` talk, `progress`, `show` and `results` show.

mod arguments;
mod counted;
mod follow;
mod interrupts;
mod outcome;
mod prepare;
mod progress;
mod read;
mod results;
mod run;
mod show;
mod submit;
mod talk;
mod terminal;
mod totals;

use std::io::Write;
use std::time::Duration;

pub use arguments::BatchCommand;
use arguments::{Batch, BatchCancel, BatchList, BatchResults, BatchWatch};
use batchin_settings::Environment;
pub use counted::counted;
use follow::{Follower, follow, why_it_ended};
pub use interrupts::Interrupts;
pub use outcome::Outcome;
use progress::Progress;
pub use talk::ClientError;
use talk::{Client, understood};
pub use terminal::{BatchError, Terminal};
use terminal::{connect, open, print, sink};
use tokio::time::timeout;

/// How long a word about results that are delivered already may take.
const AFTERWORD: Duration = Duration::from_secs(5);

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

#[cfg(test)]
mod tests;
