//! Holds: `batchin audit rotate-key`.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, Result};
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_tasks::Tasks;
use serde_json::json;

use crate::{audit_log, secret_key};

/// What runs beside is done at once: nothing is recorded here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the next key sign the audit log.
pub(super) async fn rotate_key(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let key = secret_key::find(config)?;
    let key =
        key.with_context(|| format!("there is no server.secret_key, and no {}", secret_key::file(config).display()))?;
    let tasks = Tasks::new();
    let audit = audit_log::open(config, key, &store, &tasks).await?;
    let rotated = audit.rotate_key().await;
    drop(audit);
    tasks.shutdown(PATIENCE).await;
    let next = rotated?;
    let public = hex::encode(&next.public);
    if as_json {
        writeln!(out, "{}", json!({ "key_id": next.key_id, "verify_key_hex": public, "generation": next.generation }))?;
    } else {
        writeln!(out, "key {} signs from now on: {} {public}", next.generation, next.key_id)?;
    }
    Ok(Outcome::Done)
}
