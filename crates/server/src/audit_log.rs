//! Holds: the audit log as this node has it: its keys, and what it has signed.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use batchin_audit::{Audit, AuditParts, Memory};
use batchin_config::Config;
use batchin_receipts::SigningKey;
use batchin_store::Store;
use batchin_tasks::Tasks;
use batchin_webhooks::MasterKey;
use tracing::warn;

use crate::world::World;

/// What this node has signed, in the data folder.
const MEMORY: &str = "audit_signed.json";

/// Opens the log, signed by a key of `server.secret_key`'s own, which all nodes of one database have.
pub(crate) async fn open(config: &Config, key: MasterKey, store: &Store, tasks: &Tasks) -> Result<Audit> {
    let parts = AuditParts {
        rows: store.audit_rows(),
        clock: Arc::new(World),
        ids: Arc::new(World),
        signers: Arc::new(move |generation| {
            SigningKey::from_seed(&key.derive(&format!("audit signing key {generation}")))
        }),
        origin: config.audit.origin.clone(),
        memory: Memory::open(config.server.data_dir.join(MEMORY))
            .context("what this node has signed of the audit log")?,
        tasks: tasks.clone(),
    };
    let audit = Audit::open(parts).await.context("the audit log")?;
    if !audit.may_sign() {
        warn!("the audit log is signed with another server.secret_key: this node shows it and records nothing");
    }
    Ok(audit)
}
