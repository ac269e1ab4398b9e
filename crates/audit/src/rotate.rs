//! Holds: having another key sign.

use std::sync::Arc;

use batchin_domain::{AuditId, AuditKind};
use batchin_receipts::{BadKey, rotation_entry};
use batchin_store::{AuditEntry, AuditKey, StoreError};

use crate::{
    Audit,
    signing::{Signing, stored},
};

/// Why no other key follows.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// This node has not the key that signs now, which must say which one follows.
    #[error("this node has not the key that signs the log: its server.secret_key is another one")]
    OtherKey,
    /// Somebody else changed it at the same time.
    #[error("the key was changed by somebody else meanwhile")]
    Meanwhile,
    /// A key could not be made.
    #[error("the next key could not be made")]
    Key(#[from] BadKey),
    /// The store failed.
    #[error("the change of keys could not be stored")]
    Store(#[from] StoreError),
}

impl Audit {
    /// Has the next key sign from now on, which the log says in an entry that both keys sign; the new key. Other nodes follow
    /// within some seconds.
    pub async fn rotate_key(&self) -> Result<AuditKey, RotateError> {
        let inner = &self.0;
        let newest = inner.rows.audit_keys().await?.into_iter().next().ok_or(RotateError::Meanwhile)?;
        let old = Signing::of(&newest, &inner.signers)?.signer.ok_or(RotateError::OtherKey)?;
        let (generation, now) = (newest.generation + 1, inner.clock.now());
        let new = (inner.signers)(generation)?;
        let next = stored(&new, generation, now);
        let (body, signature) = rotation_entry(&inner.origin, (&old, &new), &now.to_string());
        let entry = AuditEntry {
            id: AuditId::new(inner.ids.uuid()),
            account: None,
            kind: AuditKind::Rotation,
            created_at: now,
            body,
            key_id: next.key_id.clone(),
            signature: signature.to_vec(),
            index: None,
        };
        if !inner.rows.rotate_audit_key(&next, &entry).await? {
            return Err(RotateError::Meanwhile);
        }
        self.follow_key().await?;
        inner.bell.notify_one();
        Ok(next)
    }

    /// Takes up the key that signs now, if it was changed.
    pub(crate) async fn follow_key(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let Some(newest) = inner.rows.audit_keys().await?.into_iter().next() else { return Ok(()) };
        // A key that cannot be made signs nothing; the next look tries again.
        if newest.key_id != inner.signing.load().key_id
            && let Ok(signing) = Signing::of(&newest, &inner.signers)
        {
            inner.signing.store(Arc::new(signing));
        }
        Ok(())
    }
}
