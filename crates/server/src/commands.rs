//! Holds: the commands that work on the database and the models; each beside a running server.

mod check_models;
mod doctor;
mod engine;
mod ledger;
mod list_models;
mod migrate;
pub(crate) mod pull;
mod users;
mod webhooks;

use std::io::Write;

use anyhow::{Context as _, Result};
use batchin_domain::{Clock as _, Timestamp};
use batchin_store::{Store, User};

use crate::{
    cli::{self, Cli, Command, Outcome},
    config::{Config, ConfigError, Environment},
    telemetry, wiring,
    world::World,
};

/// Runs a command that needs the configuration.
pub fn run(cli: &Cli, out: &mut impl Write) -> Result<Outcome> {
    if let Command::Engine(engine) = &cli.command {
        return engine::run(&engine.arguments);
    }
    let sources = cli.sources(Environment::of_process());
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
        Command::Key(command) => users::key(command, config, out).await,
        Command::Credits(command) => users::credits(command, config, out).await,
        Command::Models(cli::Models::List(report)) => list_models::run(config, report.json, out),
        Command::Models(cli::Models::Pull { name }) => pull::run(name, config, out).await,
        Command::Models(cli::Models::Check(report)) => check_models::run(config, report.json, out).await,
        Command::Webhooks(command) => webhooks::run(command, config, out).await,
        Command::Ledger(cli::Ledger::Check(report)) => ledger::run(config, report.json, out).await,
        Command::Serve(_) | Command::Doctor(_) | Command::Engine(_) | Command::Config(_) | Command::Batch(_) => {
            anyhow::bail!("this command is run elsewhere")
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")
}

/// The database for one command, brought up to date.
async fn store(config: &Config) -> Result<Store> {
    wiring::create_private(&config.server.data_dir)?;
    Ok(wiring::connect(config, true).await?)
}

fn now() -> Timestamp {
    World.now()
}

async fn user_of(store: &Store, email: &str) -> Result<User> {
    let found = store.user_by_email(&email.trim().to_lowercase()).await?;
    found.with_context(|| format!("nobody is registered as {email}; `batchin user create {email}` makes the user"))
}
