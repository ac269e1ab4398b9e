//! Runs an engine by hand:
//!
//! ```text
//! GOMP_SPINCOUNT=1000 cargo run --release -p batchin-engine --example serve -- --socket /tmp/e.sock --model NAME=FILE.gguf[,slots=8]
//! curl --unix-socket /tmp/e.sock http://engine/v1/models
//! ```

#![expect(clippy::print_stderr, reason = "an example speaks to its terminal")]

use std::{path::PathBuf, process::ExitCode};

use batchin_engine::{DEFAULT_LOG_FILTER, EngineOptions, run};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(DEFAULT_LOG_FILTER).with_writer(std::io::stderr).init();
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!(
                "{message}\nusage: serve --socket PATH --model ID=FILE[,kind=embed][,context=N][,slots=N] [--threads N]"
            );
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("{error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<EngineOptions, String> {
    let mut options = EngineOptions::new(PathBuf::from("engine.sock"), Vec::new());
    options.watch_parent = false;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--socket" => options.socket = value()?.into(),
            "--model" => options.models.push(value()?.parse().map_err(|error| format!("{error}"))?),
            "--threads" => options.threads = Some(value()?.parse().map_err(|error| format!("--threads: {error}"))?),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(options)
}
