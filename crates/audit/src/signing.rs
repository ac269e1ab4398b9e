//! Holds: which key signs.

use std::sync::Arc;

use batchin_domain::Timestamp;
use batchin_receipts::{BadKey, SigningKey};
use batchin_store::AuditKey;

/// Makes the log's key of a generation, from 1 on: each the same each time, on every node.
pub type Signers = Arc<dyn Fn(u32) -> Result<SigningKey, BadKey> + Send + Sync>;

/// The key that signs now.
pub(crate) struct Signing {
    pub(crate) key_id: String,
    /// The key itself; none where this node has another one than the log.
    pub(crate) signer: Option<SigningKey>,
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
