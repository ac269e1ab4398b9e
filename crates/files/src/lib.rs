//! Holds: bytes that are kept, in a folder or in a bucket: files, bodies of tasks, results.
//!
//! A file is written as a stream, read as a stream, and gone when it is deleted or expires. Nothing here knows what
//! anything is kept for: no batches and no gateway.

mod blobs;
mod content;
mod disk;
mod files;
mod manifest;
mod room;
mod spool;
mod sweep;
mod write;

pub use batchin_store::{FileBounds, FileRoom};
pub use blobs::{BlobError, BlobWriter, Blobs, BlobsPlace, IDENTITY, OpenBlobsError};
pub use content::ContentError;
pub use disk::DiskReserve;
pub use files::{DeleteError, Files, FilesOptions, FilesParts};
pub use manifest::{ManifestWriter, NewOutput};
pub use spool::{Spool, Spooled};
pub use write::{Upload, WriteFileError};
