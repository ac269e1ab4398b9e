//! Holds: giving entries their places, and signing and publishing what the log is then.

use std::{error::Error, time::Duration};

use batchin_receipts::{Checkpoint, SigningKey, verify_consistency};
use batchin_store::AuditLog;
use batchin_tasks::Tasks;
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    Audit,
    log::LogError,
    memory::{Forgotten, Signed},
};

/// Entries that get their places in one transaction.
const AT_ONCE: u32 = 1_000;
/// Between two looks for what nobody rang for: entries that a node left behind, another key.
const LOOK: Duration = Duration::from_secs(5);
/// Between two checkpoints: they are signed and written down each, and records need not wait for less.
const SIGN: Duration = Duration::from_millis(100);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);

impl Audit {
    /// Extends the log from this node as entries come. Any number of nodes may.
    pub fn start(&self, tasks: &Tasks) {
        let audit = self.clone();
        tasks.spawn("audit_log", |stop| audit.run(stop));
    }

    async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match stop.run_until_cancelled(self.extend()).await {
                None => return,
                Some(Ok(true)) => SIGN,
                Some(Ok(false)) => Duration::ZERO,
                Some(Err(cause @ (LogError::Torn | LogError::Memory { .. }))) => {
                    counter!("batchin_audit_alarms_total").increment(1);
                    error!(error = &cause as &dyn Error, "the audit log stands still: {cause}");
                    PAUSE
                }
                Some(Err(LogError::Store(cause))) => {
                    warn!(error = &cause as &dyn Error, "the audit log could not be extended");
                    PAUSE
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if pause == Duration::ZERO {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.0.bell.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }

    /// Gives waiting entries their places, and publishes the log's checkpoint where it has grown; whether anything was done.
    pub async fn extend(&self) -> Result<bool, LogError> {
        let rows = &self.0.rows;
        self.follow_key().await?;
        let signing = self.0.signing.load_full();
        let Some(signer) = &signing.signer else { return Ok(false) };
        let waits = rows.audit_waits().await?;
        let log = if waits {
            let log = rows.extend_audit_log(AT_ONCE).await?;
            batchin_faults::point("audit.extended");
            log
        } else {
            let Some(log) = rows.audit_log().await? else { return Ok(false) };
            log
        };
        let is_new = self.publish(&log, signer).await?;
        #[expect(clippy::cast_precision_loss, reason = "a gauge, of numbers far below 2^53")]
        gauge!("batchin_audit_log_entries").set(log.size as f64);
        Ok(waits || is_new)
    }

    /// Signs a committed size and root, unless that was done; whether it was published.
    async fn publish(&self, log: &AuditLog, signer: &SigningKey) -> Result<bool, LogError> {
        if log.checkpoint.as_ref().is_some_and(|(size, _)| *size >= log.size) {
            return Ok(false);
        }
        self.goes_on(log).await?;
        let inner = &self.0;
        let checkpoint = Checkpoint { origin: inner.origin.clone(), size: log.size, root: log.root };
        let signed = Signed { origin: log.origin.clone(), size: log.size, root: log.root.hex() };
        let memory = inner.memory.clone();
        let remembered = tokio::task::spawn_blocking(move || memory.remember(signed)).await;
        remembered.unwrap_or_else(|_| Err(Forgotten::File(std::io::ErrorKind::Other.into())))?;
        batchin_faults::point("audit.remembered");
        let note = checkpoint.sign(signer).to_text();
        let is_new = inner.rows.publish_checkpoint((log.size, log.root), &note).await?;
        batchin_faults::point("audit.published");
        Ok(is_new)
    }

    /// Whether the stored log goes on from what this node has signed.
    async fn goes_on(&self, log: &AuditLog) -> Result<(), LogError> {
        let memory = &self.0.memory;
        memory.allows(&log.origin, log.size, &log.root)?;
        let Some(last) = memory.last(&log.origin).filter(|last| last.size < log.size) else { return Ok(()) };
        let proof = self.consistency(last.size, log.size).await?;
        let mut root = [0; 32];
        hex::decode_to_slice(&last.root, &mut root).map_err(|_| LogError::Torn)?;
        let roots = (&batchin_receipts::Hash::new(root), &log.root);
        verify_consistency((last.size, log.size), roots, &proof)
            .map_err(|_| Forgotten::Other { size: last.size }.into())
    }
}
