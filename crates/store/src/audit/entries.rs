//! Holds: entries of the audit log, from when they are written until whenever they are asked for, and keys.

use batchin_db::{Rerun, Row, Value, WriteTx, exactly, retried};
use batchin_domain::{AccountId, AuditId, AuditKind, Timestamp};
use uuid::Uuid;

use crate::{
    StoreError,
    audit::AuditRows,
    stored::{stored, to_i64},
};

const ENTRY: &str = "audit_entry";
const KEYS: &str = "SELECT generation, key_id, public, created_at FROM audit_key ORDER BY generation DESC";
const COLUMNS: &str = "id, account_id, kind, created_at, body, key_id, signature, log_index";

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Names it.
    pub id: AuditId,
    /// Whose it is; nobody's where the log speaks of itself.
    pub account: Option<AccountId>,
    /// What it is.
    pub kind: AuditKind,
    /// When.
    pub created_at: Timestamp,
    /// What is signed.
    pub body: String,
    /// Which key signed.
    pub key_id: String,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
    /// Its place in the log, once it has one.
    pub index: Option<u64>,
}

/// A key that signs, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditKey {
    /// Which one of the log's keys it is; the first is 1.
    pub generation: u32,
    /// Names it.
    pub key_id: String,
    /// The public key, 32 bytes.
    pub public: Vec<u8>,
    /// Since when.
    pub created_at: Timestamp,
}

impl AuditRows {
    /// Writes entries, all or none. One that is there changes nothing.
    pub async fn keep_audit_entries(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            for entry in entries {
                keep(&tx, entry).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// An entry.
    pub async fn audit_entry(&self, id: AuditId) -> Result<Option<AuditEntry>, StoreError> {
        let row = self.db.one(format!("SELECT {COLUMNS} FROM audit_entry WHERE id = $1"), [id.uuid().into()]).await?;
        row.as_ref().map(entry).transpose()
    }

    /// Entries of an account, newest first, at most `limit`, older than `after` if that is given.
    pub async fn audit_entries(
        &self,
        account: AccountId,
        limit: u32,
        after: Option<AuditId>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut sql = format!("SELECT {COLUMNS} FROM audit_entry WHERE account_id = $1");
        let mut values: Vec<Value> = vec![account.uuid().into(), i64::from(limit).into()];
        if let Some(after) = after {
            sql.push_str(" AND (created_at, id) < ((SELECT created_at FROM audit_entry WHERE id = $3), $3)");
            values.push(after.uuid().into());
        }
        sql.push_str(" ORDER BY created_at DESC, id DESC LIMIT $2");
        self.db.all(sql, values).await?.iter().map(entry).collect()
    }

    /// So many entries from a place on; fewer where the log is shorter.
    pub async fn audit_bundle(&self, from: u64, count: u64) -> Result<Vec<AuditEntry>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM audit_entry WHERE log_index >= $1 AND log_index < $2 ORDER BY log_index");
        let values = [to_i64(from).into(), to_i64(from.saturating_add(count)).into()];
        self.db.all(sql, values).await?.iter().map(entry).collect()
    }

    /// All keys that sign or did, the newest first.
    pub async fn audit_keys(&self) -> Result<Vec<AuditKey>, StoreError> {
        self.db.all(KEYS, []).await?.iter().map(key).collect()
    }
}

pub(super) fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let corrupt = StoreError::Corrupt { table: ENTRY, column: "log_index" };
    let account: Option<Uuid> = row.get("account_id")?;
    let index: Option<i64> = row.get("log_index")?;
    Ok(AuditEntry {
        id: AuditId::new(row.get("id")?),
        account: account.map(AccountId::new),
        kind: stored(row, ENTRY, "kind")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        body: row.get("body")?,
        key_id: row.get("key_id")?,
        signature: row.get("signature")?,
        index: index.map(|index| u64::try_from(index).map_err(|_| corrupt)).transpose()?,
    })
}

/// Gives an entry its place.
pub(super) async fn place(tx: &WriteTx, id: Uuid, index: u64) -> Result<(), StoreError> {
    let sql = "UPDATE audit_entry SET log_index = $2 WHERE id = $1 AND log_index IS NULL";
    exactly(tx.run(sql, [id.into(), to_i64(index).into()]).await?, 1, ENTRY)
}

/// All keys, the newest first.
pub(super) async fn keys(tx: &WriteTx) -> Result<Vec<AuditKey>, StoreError> {
    tx.all(KEYS, []).await?.iter().map(key).collect()
}

fn key(row: &Row) -> Result<AuditKey, StoreError> {
    let corrupt = |_| StoreError::Corrupt { table: "audit_key", column: "generation" };
    Ok(AuditKey {
        generation: u32::try_from(row.get::<i32>("generation")?).map_err(corrupt)?,
        key_id: row.get("key_id")?,
        public: row.get("public")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}

/// Remembers a public key that signs from now on.
pub(super) async fn keep_key(tx: &WriteTx, key: &AuditKey) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_key (generation, key_id, public, created_at) VALUES ($1,$2,$3,$4)";
    let generation = i32::try_from(key.generation).unwrap_or(i32::MAX);
    let values =
        [generation.into(), key.key_id.as_str().into(), key.public.as_slice().into(), key.created_at.micros().into()];
    exactly(tx.run(sql, values).await?, 1, "audit_key")
}

/// Writes an entry; one that is there stays as it is.
pub(super) async fn keep(tx: &WriteTx, entry: &AuditEntry) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit_entry (id, account_id, kind, created_at, body, key_id, signature) \
               VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (id) DO NOTHING";
    let values = [
        entry.id.uuid().into(),
        entry.account.map(AccountId::uuid).into(),
        entry.kind.code().into(),
        entry.created_at.micros().into(),
        entry.body.as_str().into(),
        entry.key_id.as_str().into(),
        entry.signature.as_slice().into(),
    ];
    tx.run(sql, values).await.map(drop)
}
