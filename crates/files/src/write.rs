//! Holds: writing a file: first its row, then its bytes, then its owner sees it.

use std::time::Duration;

use batchin_domain::{AccountId, FileId, FilePurpose};
use batchin_shares::{NoShare, Share};
use batchin_store::{FileContent, FileDetails, FileRow, FinishFileError, NewFile, StoreError};
use bytes::Bytes;
use tracing::warn;

use crate::{BlobError, Files, blobs::BlobWriter, files::blob_of};

/// Why a file was not written. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum WriteFileError {
    /// It is longer than files may be.
    #[error("the file has more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// As many uploads as the node bears are under way.
    #[error("too many uploads at once")]
    Busy,
    /// The account has its part of the uploads that the node bears.
    #[error("the account has its part of the uploads")]
    OverShare,
    /// The account may not keep more than this.
    #[error("the account may not keep more files")]
    NoRoom {
        /// All its files together, in bytes.
        bytes: u64,
        /// How many.
        files: u64,
        /// Whether it may keep more once it has credit.
        without_credit: bool,
    },
    /// What is free on the disk is kept for what must go on.
    #[error("the disk is nearly full")]
    NoDisk,
    /// It took so long that it was swept.
    #[error("the file took too long")]
    TooLate,
    /// The work on it ended early, which has been logged.
    #[error("the file was not finished")]
    Interrupted,
    /// Its bytes could not be stored.
    #[error("the file's bytes could not be stored")]
    Blob(#[source] BlobError),
    /// What a request brings could not be put on the disk.
    #[error("the upload could not be put on the disk")]
    Spool(#[source] std::io::Error),
    /// The list of its parts could not be written.
    #[error("a line of the file's list of parts could not be written")]
    Line(#[source] std::io::Error),
    /// It could not be noted.
    #[error("the file could not be noted")]
    Store(#[source] StoreError),
}

impl From<FinishFileError> for WriteFileError {
    fn from(cause: FinishFileError) -> Self {
        match cause {
            FinishFileError::Gone => Self::TooLate,
            FinishFileError::Store(cause) => Self::Store(cause),
        }
    }
}

/// A file that is being written. Dropped before it is finished, it leaves nothing behind.
pub struct Upload {
    pub(crate) files: Files,
    pub(crate) account: AccountId,
    pub(crate) id: FileId,
    /// `None` once the blob is being completed.
    writer: Option<BlobWriter>,
    pub(crate) written: u64,
    pub(crate) limit: u64,
    /// What is claimed of the account's room; `None` for what the platform itself writes.
    pub(crate) claimed: Option<u64>,
    is_finished: bool,
    _place: Option<Share<AccountId>>,
}

impl Files {
    /// Begins an upload of at most `max_bytes`.
    pub async fn upload(&self, account: AccountId) -> Result<Upload, WriteFileError> {
        let place = self.uploads.take(account, 1).map_err(|why| match why {
            NoShare::Full => WriteFileError::Busy,
            NoShare::OverPart => WriteFileError::OverShare,
        })?;
        let mut upload = self.begin_claimed(account, 0).await?;
        upload.limit = self.options.max_bytes;
        upload._place = Some(place);
        Ok(upload)
    }

    /// Begins a file of so many bytes that a client sent some other way.
    pub async fn begin_claimed(&self, account: AccountId, bytes: u64) -> Result<Upload, WriteFileError> {
        self.check_disk()?;
        let id = FileId::new(self.parts.ids.uuid());
        let blob = blob_of(id);
        let writer = self.parts.blobs.writer(&blob).map_err(WriteFileError::Blob)?;
        let new = NewFile { id, account, blob, content: FileContent::Blob, now: self.now() };
        self.rows().begin_claimed_file(&new, bytes, &self.options.bounds).await?;
        batchin_faults::point("file.begun");
        let mut upload = self.open(account, id, writer);
        upload.claimed = Some(bytes);
        Ok(upload)
    }

    /// Begins a file that the platform itself writes. The same id again, after a writer that was killed, gives one file.
    pub async fn begin_output(&self, account: AccountId, id: FileId) -> Result<Upload, WriteFileError> {
        self.begin(account, id, FileContent::Blob).await
    }

    pub(crate) async fn begin(
        &self,
        account: AccountId,
        id: FileId,
        content: FileContent,
    ) -> Result<Upload, WriteFileError> {
        let blob = blob_of(id);
        let writer = self.parts.blobs.writer(&blob).map_err(WriteFileError::Blob)?;
        let new = NewFile { id, account, blob, content, now: self.now() };
        self.rows().begin_file(&new).await.map_err(WriteFileError::Store)?;
        Ok(self.open(account, id, writer))
    }

    fn open(&self, account: AccountId, id: FileId, writer: BlobWriter) -> Upload {
        let files = self.clone();
        let (writer, limit) = (Some(writer), u64::MAX);
        Upload { files, account, id, writer, written: 0, limit, claimed: None, is_finished: false, _place: None }
    }
}

impl Upload {
    /// Names the file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// How many bytes were written.
    pub fn bytes(&self) -> u64 {
        self.written
    }

    /// Adds to the file; waits while what was written before is on its way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), WriteFileError> {
        self.make_room(bytes.len() as u64).await?;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(bytes).await.map_err(WriteFileError::Blob)
    }

    /// The file is whole: durable and seen by its owner when this returns. It expires this long after it was begun.
    pub async fn finish(
        self,
        purpose: FilePurpose,
        filename: String,
        expires_after: Option<Duration>,
    ) -> Result<FileRow, WriteFileError> {
        let bytes = self.written;
        self.complete(FileDetails { purpose, filename, bytes, expires_after }).await
    }

    /// Goes on when whoever waits goes away: a blob that is on the way to its place cannot be called back, and must
    /// not arrive there after its row is gone.
    pub(crate) async fn complete(self, details: FileDetails) -> Result<FileRow, WriteFileError> {
        let tasks = self.files.parts.tasks.clone();
        let made = tasks.see_through("file_finish", self.make_whole(details));
        made.await.unwrap_or(Err(WriteFileError::Interrupted))
    }

    async fn make_whole(mut self, details: FileDetails) -> Result<FileRow, WriteFileError> {
        // One that fails to finish gives itself up.
        if let Some(mut writer) = self.writer.take() {
            writer.finish().await.map_err(WriteFileError::Blob)?;
        }
        let row = self.files.rows().finish_file(self.account, self.id, &details).await?;
        self.is_finished = true;
        Ok(row)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let (files, id, writer) = (self.files.clone(), self.id, self.writer.take());
        self.files.parts.tasks.spawn("unfinished_file", move |_| files.give_up(id, writer));
    }
}

impl Files {
    /// What fails here is found by the sweep, by the file's row.
    async fn give_up(self, id: FileId, writer: Option<BlobWriter>) {
        if let Some(mut writer) = writer
            && let Err(cause) = writer.abort().await
        {
            warn!(error = &cause as &dyn std::error::Error, "the parts of an unfinished file are left over");
        }
        self.discard(id, &blob_of(id)).await;
    }
}
