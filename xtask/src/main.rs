//! Holds: chores of the workspace: `cargo xtask tidy`.
//!
//! Never part of what is shipped.

mod tidy;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => tidy(),
        _ => bail!("usage: cargo xtask tidy"),
    }
}

fn tidy() -> Result<ExitCode> {
    let faults = tidy::check(&root()?)?;
    let mut out = io::stdout().lock();
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} untidy places", faults.len())?;
    Ok(ExitCode::FAILURE)
}

/// The folder of the workspace, which is where this crate lies in.
fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(Path::to_owned).context("xtask lies in the workspace")
}
