//! Holds: an account's files: what the operator may set, and finding, listing and deleting one.

use std::{path::PathBuf, sync::Arc};

use batchin_domain::{AccountId, Clock, FileId, IdSource, Timestamp};
use batchin_shares::{ShareLimits, Shares};
use batchin_store::{DeleteFileError, FileBounds, FilePage, FileRoom, FileRow, FileRows, StoreError};
use batchin_tasks::Tasks;
use tracing::warn;

use crate::{Blobs, DiskReserve};

/// Uploads at once on this node. Each may have a few parts of five megabytes in memory.
const MAX_UPLOADS: u64 = 32;
/// What one account may have of them while it is alone, in percent.
const MAX_ACCOUNT_PERCENT: u64 = 90;
/// Largest file that is uploaded, in bytes.
const MAX_BYTES: u64 = 1_000_000_000;
/// What an account may keep.
const ROOM: FileRoom = FileRoom { bytes: 100_000_000_000, files: 10_000 };
/// What an account without credit may keep: enough to try everything out.
const ROOM_WITHOUT_CREDIT: FileRoom = FileRoom { bytes: 100_000_000, files: 100 };

/// What the operator may set.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// Largest file that is uploaded, in bytes.
    pub max_bytes: u64,
    /// Uploads at once on this node; above zero.
    pub max_uploads: u64,
    /// What one account may have of them while it is alone, in percent, 1 to 100; see [`ShareLimits`].
    pub max_account_percent: u64,
    /// What one account may keep.
    pub bounds: FileBounds,
    /// Free space that is left alone.
    pub reserve: DiskReserve,
    /// The folder for what requests bring and nobody keeps; made when it is first needed.
    pub spool: PathBuf,
}

impl Default for FilesOptions {
    /// As with nothing configured, and without a reserve on any disk.
    fn default() -> Self {
        Self {
            max_bytes: MAX_BYTES,
            max_uploads: MAX_UPLOADS,
            max_account_percent: MAX_ACCOUNT_PERCENT,
            bounds: FileBounds { room: ROOM, without_credit: ROOM_WITHOUT_CREDIT },
            reserve: DiskReserve::default(),
            spool: std::env::temp_dir(),
        }
    }
}

/// Why a file was not deleted.
pub type DeleteError = DeleteFileError;

/// What files are made of.
pub struct FilesParts {
    /// Where a file's row is.
    pub rows: FileRows,
    /// Where its bytes are.
    pub blobs: Blobs,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Work beside requests.
    pub tasks: Tasks,
}

/// Files. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    pub(crate) parts: Arc<FilesParts>,
    pub(crate) options: Arc<FilesOptions>,
    pub(crate) uploads: Arc<Shares<AccountId>>,
}

impl Files {
    /// Files of these parts.
    pub fn new(parts: FilesParts, options: FilesOptions) -> Self {
        let limits = ShareLimits { capacity: options.max_uploads, most_percent: options.max_account_percent };
        Self { parts: Arc::new(parts), options: Arc::new(options), uploads: Shares::new(limits) }
    }

    /// Largest file that is uploaded, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// One of an account's files, unless it is deleted or expired.
    pub async fn show(&self, account: AccountId, id: FileId) -> Result<Option<FileRow>, StoreError> {
        self.rows().file(account, id, self.now()).await
    }

    /// A file, whosever it is: for who has proven to be allowed to see it.
    pub async fn show_to_anybody(&self, id: FileId) -> Result<Option<FileRow>, StoreError> {
        self.rows().file_of_anybody(id, self.now()).await
    }

    /// Part of an account's files.
    pub async fn list(&self, account: AccountId, page: FilePage) -> Result<Vec<FileRow>, StoreError> {
        self.rows().files(account, page, self.now()).await
    }

    /// Deletes a file: it is gone for its owner when this returns, and a reading that is under way may break off.
    pub async fn delete(&self, account: AccountId, id: FileId) -> Result<(), DeleteError> {
        let deleted = self.rows().delete_file(account, id, self.now()).await?;
        // What fails here is done by the sweep.
        if let Err(cause) = self.remove(id, &deleted.blob).await {
            warn!(error = &cause as &dyn std::error::Error, "a deleted file's content is left to the sweep");
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> &FileRows {
        &self.parts.rows
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

/// Where a file's bytes lie.
pub(crate) fn blob_of(id: FileId) -> String {
    format!("files/{}", id.uuid())
}
