//! Holds: the log's tree, which only grows, and its checkpoint.
//!
//! Entries become leaves in one transaction that holds the log's row: whoever else would do so waits. What is signed is a size
//! and root that are committed, so that any number of nodes sign one and the same tree.

use batchin_db::{Rerun, Row, WriteTx, exactly, retried};
use batchin_domain::AuditKind;
use batchin_receipts::{Edge, FullTile, Hash, TILE_WIDTH, leaf_hash};

use crate::{
    StoreError,
    audit::{
        AuditRows,
        entries::{AuditEntry, AuditKey, entry, keep, keep_key, keys, place},
    },
    stored::{to_i64, unsigned},
};

const LOG: &str = "audit_log";
const TILE: &str = "audit_tile";
const WIDTH: u64 = TILE_WIDTH as u64;

/// The log as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// Its name, the same for ever.
    pub origin: String,
    /// How many entries have a place.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// What was published last: the size, and the signed checkpoint.
    pub checkpoint: Option<(u64, String)>,
}

impl AuditEntry {
    /// What the log has of it.
    pub fn logged(&self) -> Vec<u8> {
        match self.kind {
            AuditKind::Receipt | AuditKind::Statement => Hash::of(self.body.as_bytes()).bytes().to_vec(),
            AuditKind::Rotation => self.body.clone().into_bytes(),
        }
    }
}

impl AuditRows {
    /// Begins the log under a name, signed by a first key, or leaves it as it is; and its keys, the newest first.
    pub async fn begin_audit_log(
        &self,
        origin: &str,
        first: &AuditKey,
    ) -> Result<(AuditLog, Vec<AuditKey>), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "INSERT INTO audit_log (id, origin, size, root, checkpoint_size) VALUES (1,$1,0,$2,0) \
                       ON CONFLICT (id) DO NOTHING";
            tx.run(sql, [origin.into(), Edge::default().root().bytes().as_slice().into()]).await?;
            // Whoever else begins it waits here.
            let log = locked(&tx).await?;
            let mut keys = keys(&tx).await?;
            if keys.is_empty() {
                keep_key(&tx, first).await?;
                keys.push(first.clone());
            }
            tx.commit().await.map(|()| (log, keys))
        })
        .await
    }

    /// Has another key sign from now on, and the entry that says so wait for its place; `false`: it was not the key before this one
    /// that signed.
    pub async fn rotate_audit_key(&self, next: &AuditKey, entry: &AuditEntry) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            locked(&tx).await?;
            let newest = keys(&tx).await?.into_iter().next();
            match newest {
                // This very change, in a commit that went unheard.
                Some(newest) if newest.key_id == next.key_id => return Ok(true),
                Some(newest) if newest.generation + 1 == next.generation => {}
                _ => return Ok(false),
            }
            keep_key(&tx, next).await?;
            keep(&tx, entry).await?;
            tx.commit().await.map(|()| true)
        })
        .await
    }

    /// The log as it stands; `None` until it is begun.
    pub async fn audit_log(&self) -> Result<Option<AuditLog>, StoreError> {
        let sql = "SELECT origin, size, root, checkpoint, checkpoint_size FROM audit_log WHERE id = 1";
        self.db.one(sql, []).await?.as_ref().map(log).transpose()
    }

    /// Whether entries wait for their place.
    pub async fn audit_waits(&self) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS n FROM audit_entry WHERE log_index IS NULL LIMIT 1";
        Ok(self.db.one(sql, []).await?.is_some())
    }

    /// Gives up to `limit` entries their places, in the order in which they were written; the log as it stands then.
    pub async fn extend_audit_log(&self, limit: u32) -> Result<AuditLog, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let mut log = locked(&tx).await?;
            let sql = "SELECT id, account_id, kind, created_at, body, key_id, signature, log_index FROM audit_entry \
                       WHERE log_index IS NULL ORDER BY id LIMIT $1";
            let waiting = tx.all(sql, [i64::from(limit).into()]).await?;
            if waiting.is_empty() {
                return Ok(log);
            }
            let mut edge = edge_of(&tx, log.size).await?;
            if edge.root() != log.root {
                return Err(StoreError::Corrupt { table: LOG, column: "root" });
            }
            let before = edge.clone();
            for row in &waiting {
                let entry = entry(row)?;
                place(&tx, entry.id.uuid(), edge.size()).await?;
                for full in edge.append(leaf_hash(&entry.logged())) {
                    write_tile(&tx, &full).await?;
                }
            }
            write_edge(&tx, &before, &edge).await?;
            let sql = "UPDATE audit_log SET size = $2, root = $3 WHERE id = 1 AND size = $1";
            let root = edge.root();
            let values = [to_i64(log.size).into(), to_i64(edge.size()).into(), root.bytes().as_slice().into()];
            exactly(tx.run(sql, values).await?, 1, LOG)?;
            (log.size, log.root) = (edge.size(), root);
            tx.commit().await.map(|()| log)
        })
        .await
    }

    /// Publishes a signed checkpoint of the log at a size and root that it has had; one that is older than what is there is not
    /// published. Whether this one was.
    pub async fn publish_checkpoint(&self, (size, root): (u64, Hash), signed: &str) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "UPDATE audit_log SET checkpoint = $3, checkpoint_size = $1 WHERE id = 1 AND size = $1 AND root = $2 \
                       AND (checkpoint IS NULL OR checkpoint_size < $1)";
            let values = [to_i64(size).into(), root.bytes().as_slice().into(), signed.into()];
            let touched = tx.run(sql, values).await?;
            tx.commit().await.map(|()| touched == 1)
        })
        .await
    }

    /// The first `width` hashes of a tile; `None` where it has fewer.
    pub async fn audit_tile(&self, level: u8, index: u64, width: u16) -> Result<Option<Vec<Hash>>, StoreError> {
        let sql = "SELECT hashes FROM audit_tile WHERE level = $1 AND idx = $2";
        let Some(row) = self.db.one(sql, [i16::from(level).into(), to_i64(index).into()]).await? else {
            return Ok(None);
        };
        let mut hashes = hashes(&row)?;
        let width = usize::from(width);
        if hashes.len() < width {
            return Ok(None);
        }
        hashes.truncate(width);
        Ok(Some(hashes))
    }
}

async fn locked(tx: &WriteTx) -> Result<AuditLog, StoreError> {
    let sql = format!(
        "SELECT origin, size, root, checkpoint, checkpoint_size FROM audit_log WHERE id = 1{}",
        tx.dialect.for_update()
    );
    let row = tx.one(sql, []).await?.ok_or(StoreError::RowCount { table: LOG, expected: 1, touched: 0 })?;
    log(&row)
}

fn log(row: &Row) -> Result<AuditLog, StoreError> {
    let root: Vec<u8> = row.get("root")?;
    let checkpoint: Option<String> = row.get("checkpoint")?;
    let published = unsigned(row, LOG, "checkpoint_size")?;
    Ok(AuditLog {
        origin: row.get("origin")?,
        size: unsigned(row, LOG, "size")?,
        root: Hash::try_from(root.as_slice()).map_err(|_| StoreError::Corrupt { table: LOG, column: "root" })?,
        checkpoint: checkpoint.map(|signed| (published, signed)),
    })
}

/// The partial tiles at the right edge of a tree of so many leaves.
async fn edge_of(tx: &WriteTx, size: u64) -> Result<Edge, StoreError> {
    let mut levels = Vec::new();
    let (mut level, mut count) = (0_i16, size);
    while count > 0 {
        let width = (count % WIDTH) as usize;
        let mut tile = Vec::new();
        if width > 0 {
            let sql = "SELECT hashes FROM audit_tile WHERE level = $1 AND idx = $2";
            let row = tx.one(sql, [level.into(), to_i64(count / WIDTH).into()]).await?;
            tile = row.as_ref().map_or(Ok(Vec::new()), hashes)?;
        }
        levels.push(tile);
        (level, count) = (level + 1, count / WIDTH);
    }
    Edge::new(size, levels).ok_or(StoreError::Corrupt { table: TILE, column: "hashes" })
}

/// Writes the partial tiles that have changed.
async fn write_edge(tx: &WriteTx, before: &Edge, after: &Edge) -> Result<(), StoreError> {
    for (level, hashes) in (0_u8..).zip(after.levels()) {
        if hashes.is_empty() || before.levels().get(usize::from(level)) == Some(hashes) {
            continue;
        }
        let index = after.size().checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        write_tile(tx, &FullTile { level, index, hashes: hashes.clone() }).await?;
    }
    Ok(())
}

async fn write_tile(tx: &WriteTx, tile: &FullTile) -> Result<(), StoreError> {
    let bytes: Vec<u8> = tile.hashes.iter().flat_map(|hash| *hash.bytes()).collect();
    let sql = "INSERT INTO audit_tile (level, idx, hashes) VALUES ($1,$2,$3) ON CONFLICT (level, idx) DO UPDATE \
               SET hashes = excluded.hashes";
    let touched = tx.run(sql, [i16::from(tile.level).into(), to_i64(tile.index).into(), bytes.into()]).await?;
    exactly(touched, 1, TILE)
}

fn hashes(row: &Row) -> Result<Vec<Hash>, StoreError> {
    let bytes: Vec<u8> = row.get("hashes")?;
    let corrupt = |_| StoreError::Corrupt { table: TILE, column: "hashes" };
    bytes.chunks(32).map(|chunk| Hash::try_from(chunk).map_err(corrupt)).collect()
}
