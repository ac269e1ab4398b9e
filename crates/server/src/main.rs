//! Holds: the entry of the executable: which command runs.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use batchin_batch_cli::{self as batch, Outcome};
use batchin_config::PREFIX;
use batchin_server::cli::{self, Cli, Command, Config, audit::Audit};
use batchin_server::{commands, faults, tls};
use batchin_settings::Environment;
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tls::install_crypto_provider();
    let cli = Cli::parse();
    let environment = Environment::of_process(PREFIX);
    let outcome = faults::plan(&environment).and_then(|()| dispatch(&cli, environment)).unwrap_or_else(|error| {
        // Nothing is left to do when standard error is closed.
        let _ = writeln!(io::stderr(), "error: {}", cli::explain(error.as_ref()));
        let of_batch = error.downcast_ref::<batch::BatchError>().map(batch::BatchError::outcome);
        let misused = error.is::<commands::Misuse>().then_some(Outcome::Misused);
        of_batch.or(misused).unwrap_or(Outcome::Failed)
    });
    outcome.into()
}

fn dispatch(cli: &Cli, environment: Environment) -> Result<Outcome> {
    let mut out = io::stdout();
    match &cli.command {
        Command::Config(Config::Check { file, json }) => Ok(cli::config::check(file, *json, &mut out)?),
        Command::Audit(Audit::Verify(asked)) => Ok(cli::audit::verify(asked, &mut out)?),
        Command::Audit(Audit::RotateKey(report)) => {
            commands::rotate_audit_key(report.json, &cli.sources(environment), &mut out)
        }
        Command::Config(Config::Example) => Ok(cli::config::example(&mut out)?),
        Command::Completions { shell } => Ok(cli::manual::completions(*shell, &mut out)?),
        Command::Man { dir } => Ok(cli::manual::man(dir.as_deref(), &mut out)?),
        Command::Batch(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let is_interactive = io::stderr().is_terminal();
            let interrupts = batch::Interrupts::of_process(is_interactive && io::stdin().is_terminal());
            let terminal = batch::Terminal { out: &mut out, is_interactive, interrupts };
            Ok(runtime.block_on(batch::execute(command, &environment, terminal))?)
        }
        Command::Configured(command) => commands::run(command, &cli.sources(environment), &mut out),
        Command::Serve(serve) => commands::serve(serve, cli.sources(environment)),
        Command::Doctor(report) => commands::doctor(*report, &cli.sources(environment), &mut out),
        Command::Engine(engine) => commands::engine::run(&engine.arguments),
    }
}
