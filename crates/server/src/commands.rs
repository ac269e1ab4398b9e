//! Holds: the commands that need a configuration: the server, and what works on the database and the models beside it.

mod audit;
mod check_models;
mod credits;
mod deposits;
mod doctor;
pub mod engine;
mod keys;
mod ledger;
mod list_models;
mod migrate;
pub(crate) mod pull;
mod upstreams;
mod users;
mod webhooks;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use batchin_batch_cli::Outcome;
use batchin_config::{Config, ConfigError, DatabaseUrl, Sources};
use batchin_domain::{Clock as _, Timestamp};
use batchin_store::{Store, User};

use crate::{
    cli::{Configured, Deposits, Ledger, Models, Report, Serve},
    telemetry, wiring,
    world::World,
};

/// Runs a command that needs no more than the configuration.
pub fn run(command: &Configured, sources: &Sources, out: &mut impl Write) -> Result<Outcome> {
    let Some(config) = configuration(sources)? else { return Ok(Outcome::Misused) };
    runtime()?.block_on(with_config(command, &config, out))
}

/// Has the next key sign the audit log.
pub fn rotate_audit_key(as_json: bool, sources: &Sources, out: &mut impl Write) -> Result<Outcome> {
    let Some(config) = configuration(sources)? else { return Ok(Outcome::Misused) };
    runtime()?.block_on(audit::rotate_key(&config, as_json, out))
}

/// Runs the server until it is told to stop.
pub fn serve(serve: &Serve, sources: Sources) -> Result<Outcome> {
    let Some(config) = configuration(&sources)? else { return Ok(Outcome::Misused) };
    let tracing = telemetry::init(&config.log, &config.telemetry)?;
    let served = runtime()?.block_on(crate::serve::serve(config, sources, !serve.no_migrate));
    tracing.shutdown();
    served.map(|()| Outcome::Done)
}

/// Says what is wrong with this installation, of which the configuration is a part.
pub fn doctor(report: Report, sources: &Sources, out: &mut impl Write) -> Result<Outcome> {
    runtime()?.block_on(doctor::run(&Config::load(sources), report.json, out))
}

/// The configuration; `None` where it has faults, which are told.
fn configuration(sources: &Sources) -> Result<Option<Config>> {
    match Config::load(sources) {
        Ok(config) => Ok(Some(config)),
        Err(ConfigError::Faults(faults)) => {
            for fault in &faults.list {
                writeln!(std::io::stderr(), "{}", fault.describe(&faults.file))?;
            }
            Ok(None)
        }
        Err(ConfigError::Unreadable { path, source }) => Err(Misuse::NoConfiguration { file: path, source }.into()),
        Err(other) => Err(other.into()),
    }
}

async fn with_config(command: &Configured, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    match command {
        Configured::Migrate => migrate::run(config, out).await,
        Configured::User(command) => users::user(command, config, out).await,
        Configured::Key(command) => keys::run(command, config, out).await,
        Configured::Credits(command) => credits::run(command, config, out).await,
        Configured::Models(Models::List(report)) => list_models::run(config, report.json, out),
        Configured::Models(Models::Pull { name }) => pull::run(name, config, out).await,
        Configured::Models(Models::Check(report)) => check_models::run(config, report.json, out).await,
        Configured::Upstreams(command) => upstreams::run(command, config, out).await,
        Configured::Ledger(Ledger::Check(report)) => ledger::run(config, report.json, out).await,
        Configured::Deposits(Deposits::Export(report)) => deposits::export(config, report.json, out).await,
        Configured::Deposits(Deposits::Restart { chain, from, json }) => {
            deposits::restart(config, (chain, *from), *json, out).await
        }
        Configured::Webhooks(command) => webhooks::run(command, config, out).await,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")
}

/// Who acts here, in the log of what operators did.
const COMMAND_LINE: &str = "command line";

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
    let found = store.accounts().user_by_email(&email.trim().to_lowercase()).await?;
    found.with_context(|| format!("nobody is registered as {email}; `batchin user create {email}` makes the user"))
}
