//! Holds: which key signs, and having another one follow it.

use std::sync::Arc;

use batchin_domain::{AuditId, AuditKind, Timestamp};
use batchin_receipts::{BadKey, SigningKey, rotation_entry};
use batchin_store::{AuditEntry, AuditKey, StoreError};

use crate::Audit;

/// Makes the log's key of a generation, from 1 on: each the same each time, on every node.
pub type Signers = Arc<dyn Fn(u32) -> Result<SigningKey, BadKey> + Send + Sync>;

/// The key that signs now.
pub(crate) struct Signing {
    pub(crate) key_id: String,
    /// The key itself; none where this node has another one than the log.
    pub(crate) signer: Option<SigningKey>,
}

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

impl Signing {
    /// Of the log's newest key.
    pub(crate) fn of(newest: &AuditKey, signers: &Signers) -> Result<Self, BadKey> {
        let mine = signers(newest.generation)?;
        let is_it = mine.verifying().id().as_str() == newest.key_id;
        Ok(Self { key_id: newest.key_id.clone(), signer: is_it.then_some(mine) })
    }
}

pub(crate) fn stored(signer: &SigningKey, generation: u32, created_at: Timestamp) -> AuditKey {
    let key = signer.verifying();
    AuditKey { generation, key_id: key.id().to_string(), public: key.bytes().to_vec(), created_at }
}

impl Audit {
    /// Has the next key sign from now on, which the log says in an entry that both keys sign; the new key. Other nodes follow
    /// within a second or so.
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
