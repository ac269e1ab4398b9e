//! Holds: the audit log: its entries, its tree, what it has published, and the keys that signed.

pub(crate) mod entries;
pub(crate) mod log;

use batchin_db::Db;

/// The audit log. Held by who keeps it.
#[derive(Clone)]
pub struct AuditRows {
    pub(crate) db: Db,
}
