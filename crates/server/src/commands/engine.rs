//! Holds: the embedded engine's own process, which `serve` starts as a child.

use anyhow::Result;
use batchin_batch_cli::Outcome;

/// Runs the engine until its parent is gone.
#[cfg(feature = "engine")]
pub fn run(arguments: &[String]) -> Result<Outcome> {
    use anyhow::Context as _;
    use batchin_engine::{EngineOptions, ModelOptions};

    // The parent reads these lines and keeps their levels.
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(batchin_engine::DEFAULT_LOG_FILTER)
        .init();
    let (mut socket, mut models, mut threads) = (None, Vec::new(), None);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--socket" => socket = Some(value.into()),
            "--model" => models.push(value.parse::<ModelOptions>()?),
            "--threads" => threads = Some(value.parse().context("--threads must be a number")?),
            _ => anyhow::bail!("unknown argument {flag}"),
        }
    }
    let mut options = EngineOptions::new(socket.context("--socket is missing")?, models);
    options.threads = threads;
    batchin_engine::run(options)?;
    Ok(Outcome::Done)
}

/// Says that this build has no engine.
#[cfg(not(feature = "engine"))]
pub fn run(_arguments: &[String]) -> Result<Outcome> {
    anyhow::bail!("this build has no embedded engine; build with `--features engine`")
}
