//! Holds: `batchin migrate`.

use std::io::Write;

use anyhow::Result;
use batchin_batch_cli::Outcome;
use batchin_config::Config;

/// Brings the database up to date.
pub(super) async fn run(config: &Config, out: &mut impl Write) -> Result<Outcome> {
    super::store(config).await?.close().await?;
    writeln!(out, "the database is up to date")?;
    Ok(Outcome::Done)
}
