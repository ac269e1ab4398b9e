//! Holds: contents that are parts of other blobs, one after the other.
//!
//! A manifest is JSON lines, `{"blob":"key","ranges":[[offset,length],…]}`. It is written and read line by line, so
//! that a list of a million ranges takes no memory.

use std::time::Duration;

use batchin_domain::{AccountId, FileId, FilePurpose};
use batchin_store::{BlobRange, FileContent, FileDetails, FileRow};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Files, Upload, WriteFileError};

/// Ranges of one line: a line stays a few ten kilobytes.
const LINE_RANGES: usize = 1_000;

/// One line of a manifest.
#[derive(Deserialize, Serialize)]
pub(crate) struct Line {
    pub(crate) blob: String,
    /// Offset and length, in bytes.
    pub(crate) ranges: Vec<(u64, u64)>,
}

/// A file that the platform itself writes.
#[derive(Clone, Debug)]
pub struct NewOutput {
    /// Names it. Writing the same id again, after a writer that was killed, gives one file.
    pub id: FileId,
    /// Whose it is.
    pub account: AccountId,
    /// What it is for.
    pub purpose: FilePurpose,
    /// What it is called.
    pub filename: String,
    /// How long after it was begun it goes by itself.
    pub expires_after: Option<Duration>,
}

/// A file whose content is parts of other blobs, while its list is written. Dropped before it is finished, it leaves
/// nothing behind.
pub struct ManifestWriter {
    upload: Upload,
    new: NewOutput,
    line: Line,
    bytes: u64,
}

impl Files {
    /// Begins a file whose content is parts of other blobs, which must stay as long as it does.
    pub async fn create_from_manifest(&self, new: NewOutput) -> Result<ManifestWriter, WriteFileError> {
        let upload = self.begin(new.account, new.id, FileContent::Manifest).await?;
        Ok(ManifestWriter { upload, new, line: Line { blob: String::new(), ranges: Vec::new() }, bytes: 0 })
    }
}

impl ManifestWriter {
    /// How long the content is so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a part to the content's end. Parts of one blob that follow each other are read together.
    pub async fn push(&mut self, range: &BlobRange) -> Result<(), WriteFileError> {
        if range.len == 0 {
            return Ok(());
        }
        if self.line.blob != range.blob || self.line.ranges.len() == LINE_RANGES {
            self.write_line().await?;
            self.line.blob.clone_from(&range.blob);
        }
        self.bytes = self.bytes.saturating_add(range.len);
        match self.line.ranges.last_mut() {
            Some((offset, len)) if offset.saturating_add(*len) == range.offset => *len += range.len,
            _ => self.line.ranges.push((range.offset, range.len)),
        }
        Ok(())
    }

    /// The content is whole: seen by its owner when this returns.
    pub async fn finish(mut self) -> Result<FileRow, WriteFileError> {
        self.write_line().await?;
        let NewOutput { purpose, filename, expires_after, .. } = self.new;
        self.upload.complete(FileDetails { purpose, filename, bytes: self.bytes, expires_after }).await
    }

    async fn write_line(&mut self) -> Result<(), WriteFileError> {
        if self.line.ranges.is_empty() {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&self.line).map_err(|cause| WriteFileError::Line(cause.into()))?;
        line.push(b'\n');
        self.line.ranges.clear();
        self.upload.write(Bytes::from(line)).await
    }
}
