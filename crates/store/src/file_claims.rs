//! Holds: what an account may keep in files, counted before the bytes come.
//!
//! An upload claims room in steps, in its own row, so that nothing is counted twice and no row is shared by accounts. Those
//! of one account come one after the other; two of them can never pass the bound together.

use batchin_db::{Dialect, Rerun, WriteTx, retried};
use batchin_domain::{AccountId, FileId, FilePurpose};

use crate::{
    FileRows, StoreError,
    files::{NewFile, insert_file},
};

/// What one account may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRoom {
    /// All its files together, in bytes.
    pub bytes: u64,
    /// How many.
    pub files: u64,
}

/// What accounts may keep. What batches wrote does not count: it was paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBounds {
    /// With credit.
    pub room: FileRoom,
    /// Without any.
    pub without_credit: FileRoom,
}

/// Why there is no room for a file.
#[derive(Debug, thiserror::Error)]
pub enum ClaimFileError {
    /// It would be more than the account may keep.
    #[error("the account may not keep more")]
    NoRoom {
        /// What it may keep.
        room: FileRoom,
        /// How large this file may be beside the others that it keeps, in bytes.
        left: u64,
        /// Whether it may keep more once it has credit.
        without_credit: bool,
    },
    /// It took so long that it was swept, or it was given up.
    #[error("the file is not expected any more")]
    Gone,
    /// The store failed.
    #[error("the room could not be claimed")]
    Store(#[source] StoreError),
}

enum Claimed {
    Done,
    Gone,
    NoRoom { room: FileRoom, left: u64, without_credit: bool },
}

impl FileRows {
    /// Notes that a file's bytes are about to come, as [`Self::begin_file`] does, and claims room for so many of them.
    pub async fn begin_claimed_file(
        &self,
        new: &NewFile,
        bytes: u64,
        bounds: &FileBounds,
    ) -> Result<(), ClaimFileError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if let Some(refused) = look(&tx, (new.account, new.id), bytes, bounds).await? {
                tx.leave().await?;
                return Ok(refused);
            }
            insert_file(&tx, new, bytes).await?;
            tx.commit().await?;
            Ok(Claimed::Done)
        });
        outcome(run.await)
    }

    /// Claims room for so many bytes in all of a file that is being written.
    pub async fn claim_file(
        &self,
        account: AccountId,
        id: FileId,
        bytes: u64,
        bounds: &FileBounds,
    ) -> Result<(), ClaimFileError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if let Some(refused) = look(&tx, (account, id), bytes, bounds).await? {
                tx.leave().await?;
                return Ok(refused);
            }
            let claimed = tx
                .run(
                    // The state stands for a file whose bytes are still coming.
                    "UPDATE file SET bytes = $3 \
                     WHERE account_id = $1 AND id = $2 AND state = 0 AND deleted_at IS NULL",
                    [account.uuid().into(), id.uuid().into(), number(bytes).into()],
                )
                .await?;
            tx.commit().await?;
            Ok(if claimed == 1 { Claimed::Done } else { Claimed::Gone })
        });
        outcome(run.await)
    }
}

fn outcome(run: Result<Claimed, StoreError>) -> Result<(), ClaimFileError> {
    match run.map_err(ClaimFileError::Store)? {
        Claimed::Done => Ok(()),
        Claimed::Gone => Err(ClaimFileError::Gone),
        Claimed::NoRoom { room, left, without_credit } => Err(ClaimFileError::NoRoom { room, left, without_credit }),
    }
}

/// Whether the account's other files leave no room for this one. Until the transaction ends nobody else claims for it.
async fn look(
    tx: &WriteTx,
    (account, id): (AccountId, FileId),
    bytes: u64,
    bounds: &FileBounds,
) -> Result<Option<Claimed>, StoreError> {
    if tx.dialect == Dialect::Postgres {
        // Not the account's row: its balance must not wait for files.
        let (high, low) = account.uuid().as_u64_pair();
        let lock = i64::from_ne_bytes((high ^ low).to_ne_bytes());
        tx.run("SELECT pg_advisory_xact_lock($1)", [lock.into()]).await?;
    }
    let kept = tx
        .one(
            "SELECT count(*) AS files, CAST(coalesce(sum(bytes), 0) AS bigint) AS bytes, \
             (SELECT posted_credit - posted_debit FROM account WHERE id = $1) AS credit \
             FROM file WHERE account_id = $1 AND deleted_at IS NULL AND purpose <> $2 AND id <> $3",
            [account.uuid().into(), FilePurpose::BatchOutput.code().into(), id.uuid().into()],
        )
        .await?;
    let Some(kept) = kept else { return Ok(None) };
    let files = u64::try_from(kept.get::<i64>("files")?).unwrap_or_default();
    let others = u64::try_from(kept.get::<i64>("bytes")?).unwrap_or_default();
    let without_credit = kept.get::<Option<i64>>("credit")?.unwrap_or_default() <= 0;
    let room = if without_credit { bounds.without_credit } else { bounds.room };
    let left = if files >= room.files { 0 } else { room.bytes.saturating_sub(others) };
    let is_over = files >= room.files || bytes > left;
    Ok(is_over.then_some(Claimed::NoRoom { room, left, without_credit }))
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
