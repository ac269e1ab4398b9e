//! Holds: files, from the first byte of an upload to the last trace of a deleted one.
//!
//! A row comes before its blob and goes after it, so that no blob is ever without a row: what an upload that broke off
//! left behind is found by its row.

use std::time::Duration;

use batchin_db::{Db, Rerun, Row, Value, WriteTx, retried};
use batchin_domain::{AccountId, FileId, FilePurpose, Timestamp};

use crate::{StoreError, stored::stored};

/// Its bytes are still coming.
const UNFINISHED: i16 = 0;
/// It is whole.
const FINISHED: i16 = 1;

const COLUMNS: &str = "id, purpose, filename, bytes, content, blob, created_at, expires_at, deleted_at";
/// What an owner sees, with the present as `$2` and the finished state as `$3`.
const VISIBLE: &str = "state = $3 AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";

batchin_domain::stored! {
    /// How a file's blob gives its content.
    pub enum FileContent {
        /// The blob is the content.
        Blob = 0,
        /// The blob lists the parts of other blobs that are the content, one after the other.
        Manifest = 1,
    }
}

/// A file whose bytes are about to come.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Names it.
    pub id: FileId,
    /// Whose it is.
    pub account: AccountId,
    /// Where its blob will be.
    pub blob: String,
    /// What its blob will be.
    pub content: FileContent,
    /// When.
    pub now: Timestamp,
}

/// What is known of a file once its bytes are there.
#[derive(Clone, Debug)]
pub struct FileDetails {
    /// What it is for.
    pub purpose: FilePurpose,
    /// What its owner calls it.
    pub filename: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// How long after it was begun it goes by itself.
    pub expires_after: Option<Duration>,
}

/// A file as its owner sees it.
#[derive(Clone, Debug)]
pub struct FileRow {
    /// Names it.
    pub id: FileId,
    /// What it is for.
    pub purpose: FilePurpose,
    /// What its owner calls it.
    pub filename: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// What its blob is.
    pub content: FileContent,
    /// Where its blob is.
    pub blob: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it goes by itself.
    pub expires_at: Option<Timestamp>,
}

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOrder {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
}

/// Part of an account's files. Ids are in the order in which files were made, so that any id, also of a file that is
/// gone, says where the list goes on.
#[derive(Clone, Copy, Debug)]
pub struct FilePage {
    /// Only these.
    pub purpose: Option<FilePurpose>,
    /// Only what follows this file in the order asked for.
    pub after: Option<FileId>,
    /// Which first.
    pub order: FileOrder,
    /// Most rows.
    pub limit: u32,
}

/// A file that the sweep has something to do with.
#[derive(Clone, Debug)]
pub struct DueFile {
    /// Names it.
    pub id: FileId,
    /// Since when: its place in the list.
    pub since: Timestamp,
    /// Where its blob is.
    pub blob: String,
}

/// Why a file did not become whole.
#[derive(Debug, thiserror::Error)]
pub enum FinishFileError {
    /// It took so long that it was swept, or it was given up.
    #[error("the file is not expected any more")]
    Gone,
    /// The store failed.
    #[error("the file could not be stored")]
    Store(#[source] StoreError),
}

/// Why a file was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteFileError {
    /// No such file in this account.
    #[error("there is no such file")]
    NotFound,
    /// A batch that has not ended reads it.
    #[error("the file is in use")]
    InUse,
    /// The store failed.
    #[error("the file could not be deleted")]
    Store(#[source] StoreError),
}

enum Deleted {
    Done(FileRow),
    NotFound,
    InUse,
}

/// Files, without their bytes. Held by who keeps these.
#[derive(Clone)]
pub struct FileRows {
    pub(crate) db: Db,
}

impl FileRows {
    /// Notes that a file's bytes are about to come; nobody sees it yet. The same again changes nothing.
    pub async fn begin_file(&self, new: &NewFile) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            insert_file(&tx, new, 0).await?;
            tx.commit().await
        })
        .await
    }

    /// A file's bytes are there and durable: its owner sees it from now on. Finishing a finished one changes nothing.
    pub async fn finish_file(
        &self,
        account: AccountId,
        id: FileId,
        details: &FileDetails,
    ) -> Result<FileRow, FinishFileError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "UPDATE file SET state = $3, purpose = $4, filename = $5, bytes = $6, expires_at = created_at + $7 \
                 WHERE account_id = $1 AND id = $2 AND state = $8 AND deleted_at IS NULL",
                [
                    account.uuid().into(),
                    id.uuid().into(),
                    FINISHED.into(),
                    details.purpose.code().into(),
                    details.filename.as_str().into(),
                    i64::try_from(details.bytes).unwrap_or(i64::MAX).into(),
                    details.expires_after.map(|after| i64::try_from(after.as_micros()).unwrap_or(i64::MAX)).into(),
                    UNFINISHED.into(),
                ],
            )
            .await?;
            let row = tx
                .one(
                    format!(
                        "SELECT {COLUMNS} FROM file \
                         WHERE account_id = $1 AND id = $2 AND state = $3 AND deleted_at IS NULL"
                    ),
                    [account.uuid().into(), id.uuid().into(), FINISHED.into()],
                )
                .await?;
            let row = row.as_ref().map(file_row).transpose()?;
            tx.commit().await?;
            Ok(row)
        });
        run.await.map_err(FinishFileError::Store)?.ok_or(FinishFileError::Gone)
    }

    /// Gives up a file that has not become whole. Whether it was one: its blob is then to go, and its row after that.
    pub async fn abandon_file(&self, id: FileId, now: Timestamp) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // One that was given up before still is.
            let given_up = tx
                .run(
                    "UPDATE file SET deleted_at = coalesce(deleted_at, $2) WHERE id = $1 AND state = $3",
                    [id.uuid().into(), now.micros().into(), UNFINISHED.into()],
                )
                .await?;
            tx.commit().await?;
            Ok(given_up == 1)
        })
        .await
    }

    /// One of an account's files, unless it is deleted or expired.
    pub async fn file(&self, account: AccountId, id: FileId, now: Timestamp) -> Result<Option<FileRow>, StoreError> {
        let row = self
            .db
            .one(
                format!("SELECT {COLUMNS} FROM file WHERE account_id = $1 AND {VISIBLE} AND id = $4"),
                [account.uuid().into(), now.micros().into(), FINISHED.into(), id.uuid().into()],
            )
            .await?;
        row.as_ref().map(file_row).transpose()
    }

    /// A file, whosever it is, unless it is deleted or expired: for who has proven to be allowed to see it.
    pub async fn file_of_anybody(&self, id: FileId, now: Timestamp) -> Result<Option<FileRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM file WHERE id = $1 AND {VISIBLE}");
        let row = self.db.one(sql, [id.uuid().into(), now.micros().into(), FINISHED.into()]).await?;
        row.as_ref().map(file_row).transpose()
    }

    /// An account's files without those that are deleted or expired.
    pub async fn files(&self, account: AccountId, page: FilePage, now: Timestamp) -> Result<Vec<FileRow>, StoreError> {
        let mut sql = format!("SELECT {COLUMNS} FROM file WHERE account_id = $1 AND {VISIBLE}");
        let mut values: Vec<Value> = vec![account.uuid().into(), now.micros().into(), FINISHED.into()];
        if let Some(purpose) = page.purpose {
            values.push(purpose.code().into());
            sql.push_str(&format!(" AND purpose = ${}", values.len()));
        }
        let (beyond, direction) = match page.order {
            FileOrder::Newest => ('<', "DESC"),
            FileOrder::Oldest => ('>', "ASC"),
        };
        if let Some(after) = page.after {
            values.push(after.uuid().into());
            sql.push_str(&format!(" AND id {beyond} ${}", values.len()));
        }
        values.push(i64::from(page.limit).into());
        sql.push_str(&format!(" ORDER BY id {direction} LIMIT ${}", values.len()));
        self.db.all(sql, values).await?.iter().map(file_row).collect()
    }

    /// Deletes one of an account's files: nobody sees it from now on. Its blob is to go, and its row after that.
    pub async fn delete_file(
        &self,
        account: AccountId,
        id: FileId,
        now: Timestamp,
    ) -> Result<FileRow, DeleteFileError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some(locked) = lock_file(&tx, id).await? else { return Ok(Deleted::NotFound) };
            let is_theirs = locked.account == account && locked.row.expires_at.is_none_or(|at| at > now);
            // The same call again, after a commit that nothing was heard of.
            if is_theirs && locked.deleted_at == Some(now) {
                return Ok(Deleted::Done(locked.row));
            }
            if !is_theirs || locked.deleted_at.is_some() {
                return Ok(Deleted::NotFound);
            }
            if is_in_use(&tx, id).await? {
                return Ok(Deleted::InUse);
            }
            mark_deleted(&tx, id, now).await?;
            tx.commit().await?;
            Ok(Deleted::Done(locked.row))
        });
        match run.await.map_err(DeleteFileError::Store)? {
            Deleted::Done(row) => Ok(row),
            Deleted::NotFound => Err(DeleteFileError::NotFound),
            Deleted::InUse => Err(DeleteFileError::InUse),
        }
    }

    /// Deletes an expired file, unless it is in use: then it goes later. Whether it is deleted.
    pub async fn expire_file(&self, id: FileId, now: Timestamp) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let Some(locked) = lock_file(&tx, id).await? else { return Ok(true) };
            if locked.deleted_at.is_some() {
                return Ok(true);
            }
            if locked.row.expires_at.is_none_or(|at| at > now) || is_in_use(&tx, id).await? {
                return Ok(false);
            }
            mark_deleted(&tx, id, now).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Files that expired by `now`, the longest ago first, after a place in this list.
    pub async fn expired_files(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, FileId)>,
        limit: u32,
    ) -> Result<Vec<DueFile>, StoreError> {
        let (at, id) = place(after);
        let rows = self
            .db
            .all(
                "SELECT id, expires_at AS since, blob FROM file WHERE expires_at IS NOT NULL AND deleted_at IS NULL \
                 AND expires_at <= $1 AND (expires_at, id) > ($2, $3) ORDER BY expires_at, id LIMIT $4",
                [now.micros().into(), at, id, i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(due_file).collect()
    }

    /// Files whose bytes began to come before `before` and are still not there, the longest ago first.
    pub async fn unfinished_files(&self, before: Timestamp, limit: u32) -> Result<Vec<DueFile>, StoreError> {
        let rows = self
            .db
            .all(
                // The state stands in the text, where the index's condition is recognised.
                "SELECT id, created_at AS since, blob FROM file WHERE state = 0 AND deleted_at IS NULL \
                 AND created_at < $1 ORDER BY created_at, id LIMIT $2",
                [before.micros().into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(due_file).collect()
    }

    /// Deleted files whose rows are still there, the longest ago first, after a place in this list.
    pub async fn deleted_files(
        &self,
        after: Option<(Timestamp, FileId)>,
        limit: u32,
    ) -> Result<Vec<DueFile>, StoreError> {
        let (at, id) = place(after);
        let rows = self
            .db
            .all(
                "SELECT id, deleted_at AS since, blob FROM file WHERE deleted_at IS NOT NULL \
                 AND (deleted_at, id) > ($1, $2) ORDER BY deleted_at, id LIMIT $3",
                [at, id, i64::from(limit).into()],
            )
            .await?;
        rows.iter().map(due_file).collect()
    }

    /// Forgets a deleted file whose blob is gone. One that is not deleted stays.
    pub async fn forget_file(&self, id: FileId) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run("DELETE FROM file WHERE id = $1 AND deleted_at IS NOT NULL", [id.uuid().into()]).await?;
            tx.commit().await
        })
        .await
    }
}

/// Writes the row of a file whose bytes are about to come, with how many of them are claimed.
pub(crate) async fn insert_file(tx: &WriteTx, new: &NewFile, claimed: u64) -> Result<(), StoreError> {
    tx.run(
        "INSERT INTO file (id, account_id, purpose, filename, bytes, state, content, blob, created_at) \
         VALUES ($1,$2,0,'',$7,$3,$4,$5,$6) ON CONFLICT (id) DO NOTHING",
        [
            new.id.uuid().into(),
            new.account.uuid().into(),
            UNFINISHED.into(),
            new.content.code().into(),
            new.blob.as_str().into(),
            new.now.micros().into(),
            i64::try_from(claimed).unwrap_or(i64::MAX).into(),
        ],
    )
    .await?;
    Ok(())
}

/// A file's row under its lock.
pub(crate) struct LockedFile {
    account: AccountId,
    row: FileRow,
    deleted_at: Option<Timestamp>,
}

/// Locks a finished file until the transaction ends: whoever begins to use it and whoever deletes it come one after
/// the other.
pub(crate) async fn lock_file(tx: &WriteTx, id: FileId) -> Result<Option<LockedFile>, StoreError> {
    let sql = format!("SELECT account_id, {COLUMNS} FROM file WHERE id = $1 AND state = $2{}", tx.dialect.for_update());
    let Some(row) = tx.one(sql, [id.uuid().into(), FINISHED.into()]).await? else { return Ok(None) };
    Ok(Some(LockedFile {
        account: AccountId::new(row.get("account_id")?),
        row: file_row(&row)?,
        deleted_at: row.get::<Option<i64>>("deleted_at")?.map(Timestamp::from_micros),
    }))
}

/// Whether a batch that has not ended reads the file. The caller holds the file's lock, and this is a statement of its
/// own, so that it sees every batch that was opened before the lock was given.
async fn is_in_use(tx: &WriteTx, id: FileId) -> Result<bool, StoreError> {
    let reading = "SELECT 1 AS one FROM batch WHERE input_file IS NOT NULL AND input_file = $1 \
                   AND finished_at IS NULL LIMIT 1";
    Ok(tx.one(reading, [id.uuid().into()]).await?.is_some())
}

/// Locks a batch's input file, so that it is not deleted before the batch is there. Whether it is this account's and
/// can be read.
pub(crate) async fn use_file(tx: &WriteTx, account: AccountId, id: FileId, now: Timestamp) -> Result<bool, StoreError> {
    let locked = lock_file(tx, id).await?;
    Ok(locked.is_some_and(|file| {
        file.account == account && file.deleted_at.is_none() && file.row.expires_at.is_none_or(|at| at > now)
    }))
}

async fn mark_deleted(tx: &WriteTx, id: FileId, now: Timestamp) -> Result<(), StoreError> {
    tx.run("UPDATE file SET deleted_at = $2 WHERE id = $1", [id.uuid().into(), now.micros().into()]).await?;
    Ok(())
}

/// A place in a list of due files as values; without one, before all.
fn place(after: Option<(Timestamp, FileId)>) -> (Value, Value) {
    match after {
        Some((at, id)) => (at.micros().into(), id.uuid().into()),
        None => (i64::MIN.into(), uuid::Uuid::nil().into()),
    }
}

fn due_file(row: &Row) -> Result<DueFile, StoreError> {
    Ok(DueFile {
        id: FileId::new(row.get("id")?),
        since: Timestamp::from_micros(row.get("since")?),
        blob: row.get("blob")?,
    })
}

fn file_row(row: &Row) -> Result<FileRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "file", column };
    Ok(FileRow {
        id: FileId::new(row.get("id")?),
        purpose: stored(row, "file", "purpose")?,
        filename: row.get("filename")?,
        bytes: u64::try_from(row.get::<i64>("bytes")?).map_err(|_| corrupt("bytes"))?,
        content: stored(row, "file", "content")?,
        blob: row.get("blob")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        expires_at: row.get::<Option<i64>>("expires_at")?.map(Timestamp::from_micros),
    })
}
