//! Holds: what keeping the log is made of.

use std::{error::Error, sync::Arc};

use arc_swap::ArcSwap;
use batchin_domain::{Clock, IdSource};
use batchin_receipts::{BadCheckpoint, BadKey, Origin};
use batchin_store::{AuditEntry, AuditRows, StoreError};
use batchin_tasks::{Bounds, Gather, Tasks};
use tokio::sync::Notify;
use tracing::error;

use crate::{
    memory::Memory,
    signing::{Signers, Signing, stored},
};

/// What keeping the log needs.
pub struct AuditParts {
    /// The log in the database.
    pub rows: AuditRows,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids and secrets.
    pub ids: Arc<dyn IdSource>,
    /// What signs records and checkpoints.
    pub signers: Signers,
    /// The log's name: where it is served, without the scheme. A log that was begun keeps the name it has.
    pub origin: Origin,
    /// What this node has signed.
    pub memory: Memory,
    /// Ends before the store does.
    pub tasks: Tasks,
}

/// Records that wait to be stored, and that are stored together.
const BOUNDS: Bounds = Bounds { waiting: 2_048, together: 256 };

/// The log cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenAuditError {
    /// The store failed.
    #[error("the audit log could not be opened")]
    Store(#[from] StoreError),
    /// The stored name is none.
    #[error("the audit log's stored name is none")]
    Origin(#[from] BadCheckpoint),
    /// The key cannot be made.
    #[error("the audit log's key cannot be made")]
    Key(#[from] BadKey),
}

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub struct Audit(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) rows: AuditRows,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) signers: Signers,
    pub(crate) signing: ArcSwap<Signing>,
    pub(crate) origin: Origin,
    pub(crate) memory: Memory,
    /// Rung where an entry waits for its place.
    pub(crate) bell: Arc<Notify>,
    pub(crate) intake: Gather<AuditEntry>,
}

impl Audit {
    /// Opens the log, and begins it where there is none.
    pub async fn open(parts: AuditParts) -> Result<Self, OpenAuditError> {
        let AuditParts { rows, clock, ids, signers, origin, memory, tasks } = parts;
        let first = stored(&signers(1)?, 1, clock.now());
        let (log, keys) = rows.begin_audit_log(origin.as_str(), &first).await?;
        let signing = ArcSwap::from_pointee(Signing::of(keys.first().unwrap_or(&first), &signers)?);
        let origin = log.origin.parse()?;
        let bell = Arc::new(Notify::new());
        let (kept, rung) = (rows.clone(), Arc::clone(&bell));
        let intake = Gather::start("audit_intake", BOUNDS, &tasks, move |entries: Vec<AuditEntry>| {
            let (rows, bell) = (kept.clone(), Arc::clone(&rung));
            async move {
                let kept = rows.keep_audit_entries(&entries).await;
                if let Err(cause) = &kept {
                    error!(error = cause as &dyn Error, "{} audit record(s) could not be stored", entries.len());
                }
                batchin_faults::point("audit.kept");
                bell.notify_one();
                kept.is_ok()
            }
        });
        Ok(Self(Arc::new(Inner { rows, clock, ids, signers, signing, origin, memory, bell, intake })))
    }

    /// Whether this node has the key that signs the log. Without it nothing is recorded here, and the log is only shown.
    pub fn may_sign(&self) -> bool {
        self.0.signing.load().signer.is_some()
    }

    /// The log's name.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }
}
