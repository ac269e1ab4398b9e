//! Holds: the commands that work on the database and the models; each beside a running server.

mod check_models;
mod doctor;
mod engine;
mod keys;
mod ledger;
mod list_models;
mod migrate;
pub(crate) mod pull;
mod users;
mod webhooks;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use batchin_batch_cli::Outcome;
use batchin_config::{Config, ConfigError, DatabaseUrl, PREFIX};
use batchin_domain::{Clock as _, Timestamp};
use batchin_settings::Environment;
use batchin_store::{Store, User};

use crate::{
    cli::{self, Cli, Command},
    telemetry, wiring,
    world::World,
};

/// Runs a command that needs the configuration.
pub fn run(cli: &Cli, out: &mut impl Write) -> Result<Outcome> {
    if let Command::Engine(engine) = &cli.command {
        return engine::run(&engine.arguments);
    }
    let sources = cli.sources(Environment::of_process(PREFIX));
    let loaded = Config::load(&sources);
    if let Command::Doctor(report) = &cli.command {
        return runtime()?.block_on(doctor::run(&loaded, report.json, out));
    }
    let config = match loaded {
        Ok(config) => config,
        Err(ConfigError::Faults(faults)) => {
            for fault in &faults.list {
                writeln!(std::io::stderr(), "{}", fault.describe(&faults.file))?;
            }
            return Ok(Outcome::Misused);
        }
        Err(ConfigError::Unreadable { path, source }) => {
            return Err(Misuse::NoConfiguration { file: path, source }.into());
        }
        Err(other) => return Err(other.into()),
    };
    match &cli.command {
        Command::Serve(serve) => {
            let tracing = telemetry::init(&config.log, &config.telemetry)?;
            let served = runtime()?.block_on(crate::serve::serve(config, sources, !serve.no_migrate));
            tracing.shutdown();
            served.map(|()| Outcome::Done)
        }
        command => runtime()?.block_on(with_config(command, &config, out)),
    }
}

async fn with_config(command: &Command, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    match command {
        Command::Migrate => migrate::run(config, out).await,
        Command::User(command) => users::user(command, config, out).await,
        Command::Key(command) => keys::run(command, config, out).await,
        Command::Credits(command) => users::credits(command, config, out).await,
        Command::Models(cli::Models::List(report)) => list_models::run(config, report.json, out),
        Command::Models(cli::Models::Pull { name }) => pull::run(name, config, out).await,
        Command::Models(cli::Models::Check(report)) => check_models::run(config, report.json, out).await,
        Command::Webhooks(command) => webhooks::run(command, config, out).await,
        Command::Ledger(cli::Ledger::Check(report)) => ledger::run(config, report.json, out).await,
        Command::Serve(_)
        | Command::Doctor(_)
        | Command::Engine(_)
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Batch(_) => {
            anyhow::bail!("this command is run elsewhere")
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")
}

/// What a person has to type in another way.
#[derive(Debug, thiserror::Error)]
pub enum Misuse {
    /// The folder is not there; only a server makes one, as a mistyped name would be a new and empty installation.
    #[error("there is no folder {}: `batchin serve` makes the data folder, --data names another", folder.display())]
    NoFolder {
        /// Which.
        folder: PathBuf,
    },
    /// The configuration cannot be read.
    #[error("cannot read {}", file.display())]
    NoConfiguration {
        /// Which file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The database for one command, brought up to date.
async fn store(config: &Config) -> Result<Store> {
    if let DatabaseUrl::Sqlite(file) = &config.database.url
        && let Some(folder) = file.parent()
    {
        expect_folder(folder)?;
    }
    Ok(wiring::connect(config, true).await?)
}

fn expect_folder(folder: &Path) -> Result<(), Misuse> {
    let is_here = folder.as_os_str().is_empty();
    if is_here || folder.is_dir() { Ok(()) } else { Err(Misuse::NoFolder { folder: folder.to_owned() }) }
}

/// Money as JSON has it: a number with all its digits.
fn cents_number(text: &str) -> Result<serde_json::Number> {
    Ok(serde_json::from_str(text)?)
}

fn now() -> Timestamp {
    World.now()
}

async fn user_of(store: &Store, email: &str) -> Result<User> {
    let found = store.user_by_email(&email.trim().to_lowercase()).await?;
    found.with_context(|| format!("nobody is registered as {email}; `batchin user create {email}` makes the user"))
}
