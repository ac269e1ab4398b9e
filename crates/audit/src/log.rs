//! Holds: the log as it is served: checkpoint, tiles, bundles of entries, keys, proofs.

use batchin_receipts::{Hash, NoteKey, TILE_WIDTH, Tile, TileKind, Tiles, VerifyingKey};
use batchin_store::{AuditKey, StoreError};

use crate::{Audit, memory::Forgotten};

/// Why the log cannot be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error("the log could not be read")]
    Store(#[from] StoreError),
    /// What is stored of the tree does not fit together.
    #[error("what is stored of the log's tree does not fit together")]
    Torn,
    /// This node has signed something else.
    #[error("the log is not signed on: {why}")]
    Memory {
        /// What tells so.
        why: String,
    },
}

impl From<Forgotten> for LogError {
    fn from(cause: Forgotten) -> Self {
        Self::Memory { why: cause.to_string() }
    }
}

/// A key, in every form that somebody may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey {
    /// Names it.
    pub key_id: String,
    /// The key.
    pub key: VerifyingKey,
    /// For checking the log's notes.
    pub note_key: String,
    /// Since when it signs, as RFC 3339 in UTC.
    pub created_at: String,
}

impl Audit {
    /// All keys that sign or did, the one that signs now first.
    pub async fn keys(&self) -> Result<Vec<ShownKey>, StoreError> {
        let shown = |stored: AuditKey| {
            let key = VerifyingKey::new(stored.public.as_slice().try_into().ok()?);
            Some(ShownKey {
                key_id: stored.key_id,
                key,
                note_key: NoteKey::of_log(self.origin().as_str(), key).text(),
                created_at: stored.created_at.to_string(),
            })
        };
        Ok(self.0.rows.audit_keys().await?.into_iter().filter_map(shown).collect())
    }

    /// What was published last.
    pub async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        Ok(self.0.rows.audit_log().await?.and_then(|log| log.checkpoint).map(|(_, signed)| signed))
    }

    /// A tile's bytes; `None` where the log is not so long.
    pub async fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
        match tile.kind {
            TileKind::Hashes(level) => {
                let hashes = self.0.rows.audit_tile(level, tile.index, tile.width).await?;
                Ok(hashes.map(|hashes| hashes.iter().flat_map(|hash| *hash.bytes()).collect()))
            }
            TileKind::Entries => {
                let width = u64::from(tile.width);
                let Some(from) = tile.index.checked_mul(TILE_WIDTH as u64) else { return Ok(None) };
                let entries = self.0.rows.audit_bundle(from, width).await?;
                if entries.len() as u64 != width {
                    return Ok(None);
                }
                let mut bytes = Vec::new();
                for entry in entries {
                    let logged = entry.logged();
                    let Ok(length) = u16::try_from(logged.len()) else { return Ok(None) };
                    bytes.extend_from_slice(&length.to_be_bytes());
                    bytes.extend_from_slice(&logged);
                }
                Ok(Some(bytes))
            }
        }
    }

    /// The proof that an entry is in the log of that size.
    pub(crate) async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        let tiles = Tiles::new(size);
        let needed = tiles.of_inclusion(index);
        self.fetched(tiles, needed).await?.inclusion(index).ok_or(LogError::Torn)
    }

    /// The proof that the log of a size begins with the log of an older one.
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        let tiles = Tiles::new(size);
        let needed = tiles.of_consistency(old);
        self.fetched(tiles, needed).await?.consistency(old).ok_or(LogError::Torn)
    }

    async fn fetched(&self, mut tiles: Tiles, needed: Vec<Tile>) -> Result<Tiles, LogError> {
        for tile in needed {
            let TileKind::Hashes(level) = tile.kind else { continue };
            let hashes = self.0.rows.audit_tile(level, tile.index, tile.width).await?.ok_or(LogError::Torn)?;
            tiles.put(level, tile.index, hashes);
        }
        Ok(tiles)
    }
}
