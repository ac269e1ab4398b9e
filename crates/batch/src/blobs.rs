//! Holds: the bodies of tasks and results, in a local folder or in an S3 bucket.

use std::{path::PathBuf, sync::Arc};

use batchin_store::BlobRange;
use bytes::Bytes;
use object_store::{
    ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};

/// Why the place for blobs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobsError {
    /// Neither a folder nor a bucket.
    #[error("the blobs URL must be file:PATH or s3://BUCKET[/PREFIX]")]
    UnknownScheme,
    /// The folder cannot be made.
    #[error("the blobs folder cannot be made")]
    Folder(#[source] std::io::Error),
    /// The store cannot be set up.
    #[error("the blob store cannot be set up")]
    Setup(#[source] object_store::Error),
}

/// A blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The key in the database is none.
    #[error("a stored blob key is invalid")]
    Key(#[source] object_store::path::Error),
    /// The store failed.
    #[error("the blob store failed")]
    Store(#[source] object_store::Error),
}

/// The place for blobs. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

impl Blobs {
    /// Opens `file:PATH`, which is made if need be, or `s3://BUCKET[/PREFIX]` with credentials from the environment.
    pub fn open(url: &str) -> Result<Self, OpenBlobsError> {
        if let Some(folder) = url.strip_prefix("file:") {
            let folder = PathBuf::from(folder.strip_prefix("//").unwrap_or(folder));
            std::fs::create_dir_all(&folder).map_err(OpenBlobsError::Folder)?;
            let local = LocalFileSystem::new_with_prefix(folder).map_err(OpenBlobsError::Setup)?;
            // A row points at a blob only once the blob is on the disk.
            return Ok(Self { store: Arc::new(local.with_fsync(true)) });
        }
        let place = url.strip_prefix("s3://").ok_or(OpenBlobsError::UnknownScheme)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(OpenBlobsError::Setup)?;
        Ok(Self { store: Arc::new(PrefixStore::new(s3, prefix)) })
    }

    /// Writes a blob whole; durable when this returns.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        self.store.put(&path, body.into()).await.map(drop).map_err(BlobError::Store)
    }

    /// Reads part of a blob.
    pub async fn read(&self, range: &BlobRange) -> Result<Bytes, BlobError> {
        if range.len == 0 {
            return Ok(Bytes::new());
        }
        let path = Path::parse(&range.blob).map_err(BlobError::Key)?;
        let bytes = range.offset..range.offset.saturating_add(range.len);
        self.store.get_range(&path, bytes).await.map_err(BlobError::Store)
    }

    /// Forgets a blob; one that is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(BlobError::Store(cause)),
        }
    }
}
