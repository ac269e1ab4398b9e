//! Holds: files: written as a stream, read as a stream, and gone when they are deleted or expire.

mod content;
mod manifest;
mod sweep;
mod write;

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, FileId};
use batchin_gateway::Gateway;
use batchin_store::{DeleteFileError, FilePage, FileRow, Store, StoreError};
use tokio::sync::Semaphore;
use tracing::warn;

pub use content::ContentError;
pub use manifest::{ManifestWriter, NewOutput};
pub use sweep::SWEEP_EVERY;
pub use write::{Upload, WriteFileError};

use crate::Blobs;

/// Uploads at once on this node. Each may have a few parts of five megabytes in memory.
const MAX_UPLOADS: usize = 32;

/// What the operator may set.
#[derive(Clone, Copy, Debug)]
pub struct FilesOptions {
    /// Largest file that is uploaded, in bytes.
    pub max_bytes: u64,
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
    options: FilesOptions,
    uploads: Arc<Semaphore>,
}

impl Files {
    /// Files of this gateway's store that keep their contents here.
    pub fn new(gateway: Gateway, blobs: Blobs, options: FilesOptions) -> Self {
        Self { gateway, blobs, options, uploads: Arc::new(Semaphore::new(MAX_UPLOADS)) }
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
