//! Holds: removing what is deleted, expired, or never became whole.
//!
//! Any number of nodes may sweep at once: each step finds what another one did.

use std::time::Duration;

use batchin_domain::{FileId, Timestamp};
use batchin_store::StoreError;
use batchin_tasks::Sweeps;
use tracing::{error, warn};

use crate::{BlobError, Files};

/// An upload has ended long before.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3_600);
/// Files looked up at once.
const PAGE: u32 = 200;

/// A file could not be removed now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    /// Its blob is still there.
    #[error("the file's blob could not be deleted")]
    Blob(#[source] BlobError),
    /// Its row is still there.
    #[error("the file's row could not be deleted")]
    Store(#[source] StoreError),
}

impl Files {
    /// Has what is due removed from time to time.
    pub fn add_sweep(&self, sweeps: &mut Sweeps) {
        let files = self.clone();
        sweeps.add("files could not be swept", move || {
            let files = files.clone();
            async move { files.sweep().await }
        });
    }

    /// Removes what is due.
    ///
    /// # Errors
    ///
    /// The lists could not be read. What could not be removed is logged, and is tried again by the next sweep.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        self.sweep_expired().await?;
        self.sweep_unfinished().await?;
        self.sweep_deleted().await
    }

    async fn sweep_expired(&self) -> Result<(), StoreError> {
        let (now, mut after) = (self.now(), None);
        loop {
            let due = self.rows().expired_files(now, after, PAGE).await?;
            for file in &due {
                self.rows().expire_file(file.id, now).await?;
            }
            let Some(last) = due.last() else { return Ok(()) };
            after = Some((last.since, last.id));
        }
    }

    async fn sweep_unfinished(&self) -> Result<(), StoreError> {
        let now = self.now();
        let before = Timestamp::from_micros(
            now.micros().saturating_sub(i64::try_from(UNFINISHED_AGE.as_micros()).unwrap_or(i64::MAX)),
        );
        loop {
            let due = self.rows().unfinished_files(before, PAGE).await?;
            for file in &due {
                self.rows().abandon_file(file.id, now).await?;
            }
            if due.is_empty() {
                return Ok(());
            }
        }
    }

    async fn sweep_deleted(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let due = self.rows().deleted_files(after, PAGE).await?;
            for file in &due {
                match self.remove(file.id, &file.blob).await {
                    Ok(()) => {}
                    Err(RemoveError::Store(cause)) => return Err(cause),
                    Err(RemoveError::Blob(cause)) => {
                        error!(error = &cause as &dyn std::error::Error, "a deleted file's content is still there");
                    }
                }
            }
            let Some(last) = due.last() else { return Ok(()) };
            after = Some((last.since, last.id));
        }
    }

    /// Removes a deleted file's blob, then its row.
    pub(crate) async fn remove(&self, id: FileId, blob: &str) -> Result<(), RemoveError> {
        self.parts.blobs.clear(blob).await.map_err(RemoveError::Blob)?;
        self.rows().forget_file(id).await.map_err(RemoveError::Store)
    }

    /// Removes a file that never became whole. One that did stays.
    pub(crate) async fn discard(&self, id: FileId, blob: &str) {
        let discarded = async {
            if self.rows().abandon_file(id, self.now()).await.map_err(RemoveError::Store)? {
                self.remove(id, blob).await?;
            }
            Ok::<_, RemoveError>(())
        };
        if let Err(cause) = discarded.await {
            warn!(error = &cause as &dyn std::error::Error, "an unfinished file is left to the sweep");
        }
    }
}
