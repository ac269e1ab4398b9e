//! Holds: files: written as a stream, read as a stream, and gone when they are deleted or expire.

mod content;
mod manifest;
mod room;
mod sweep;
mod write;

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, FileId};
use batchin_gateway::Gateway;
use batchin_shares::{ShareLimits, Shares};
use batchin_store::{DeleteFileError, FileBounds, FilePage, FileRoom, FileRow, Store, StoreError};
use tracing::warn;

pub use content::ContentError;
pub use manifest::{ManifestWriter, NewOutput};
pub use room::DiskReserve;
pub use sweep::SWEEP_EVERY;
pub use write::{Upload, WriteFileError};

use crate::Blobs;

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
        }
    }
}

/// How long the input of a batch is kept that its owner said nothing about: as long as OpenAI keeps it.
pub const INPUT_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why a file was not deleted.
pub type DeleteError = DeleteFileError;

/// Files. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    gateway: Gateway,
    blobs: Blobs,
    options: Arc<FilesOptions>,
    uploads: Arc<Shares<AccountId>>,
}

impl Files {
    /// Files of this gateway's store that keep their contents here.
    pub fn new(gateway: Gateway, blobs: Blobs, options: FilesOptions) -> Self {
        let limits = ShareLimits { capacity: options.max_uploads, most_percent: options.max_account_percent };
        Self { gateway, blobs, options: Arc::new(options), uploads: Shares::new(limits) }
    }

    /// Largest file that is uploaded, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// One of an account's files, unless it is deleted or expired.
    pub async fn show(&self, account: AccountId, id: FileId) -> Result<Option<FileRow>, StoreError> {
        self.store().file(account, id, self.gateway.clock().now()).await
    }

    /// Part of an account's files.
    pub async fn list(&self, account: AccountId, page: FilePage) -> Result<Vec<FileRow>, StoreError> {
        self.store().files(account, page, self.gateway.clock().now()).await
    }

    /// Deletes a file: it is gone for its owner when this returns, and a reading that is under way may break off.
    pub async fn delete(&self, account: AccountId, id: FileId) -> Result<(), DeleteError> {
        let deleted = self.store().delete_file(account, id, self.gateway.clock().now()).await?;
        // What fails here is done by the sweep.
        if let Err(cause) = self.remove(id, &deleted.blob).await {
            warn!(error = &cause as &dyn std::error::Error, "a deleted file's content is left to the sweep");
        }
        Ok(())
    }

    fn store(&self) -> &Store {
        self.gateway.store()
    }
}

fn blob_of(id: FileId) -> String {
    format!("files/{}", id.uuid())
}
