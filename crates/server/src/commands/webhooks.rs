//! Holds: `batchin webhooks`.

use std::io::Write;

use anyhow::{Result, bail};
use batchin_batch_cli::{Outcome, counted};
use batchin_config::Config;

use crate::cli::Webhooks;

/// Runs a command about webhooks.
pub(super) async fn run(command: &Webhooks, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let Webhooks::ForgetSecrets { yes } = command;
    if !yes {
        bail!("every account's receiver will refuse webhooks until it has a new secret; if that is meant, add --yes");
    }
    let forgotten = super::store(config).await?.outbox().forget_webhook_secrets().await?;
    writeln!(out, "forgot the webhook secrets of {}; restart every server", counted(forgotten, "account"))?;
    Ok(Outcome::Done)
}
