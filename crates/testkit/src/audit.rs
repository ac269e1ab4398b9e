//! Holds: the audit log of a test.

use std::{path::Path, sync::Arc};

use batchin_audit::{Audit, AuditParts, Memory};
use batchin_receipts::SigningKey;
use batchin_store::Store;
use batchin_tasks::Tasks;

use crate::{TestClock, world::RealIds};

/// The log's name.
pub const ORIGIN: &str = "batchin.example/audit/log";

/// The log of a database, as a node has it that remembers in this file what it has signed.
pub async fn open(store: &Store, (clock, tasks): (&Arc<TestClock>, &Tasks), memory: &Path) -> Audit {
    let parts = AuditParts {
        rows: store.audit_rows(),
        clock: clock.clone(),
        ids: Arc::new(RealIds),
        signers: Arc::new(|generation| SigningKey::from_seed(&[generation.to_be_bytes()[3]; 32])),
        origin: ORIGIN.parse().unwrap(),
        memory: Memory::open(memory.to_owned()).unwrap(),
        tasks: tasks.clone(),
    };
    Audit::open(parts).await.unwrap()
}
