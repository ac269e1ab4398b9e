//! Holds: the bodies of tasks and results, and the contents of files, in a local folder or in an S3 bucket.

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf, sync::Arc};

use batchin_store::BlobRange;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, aws::AmazonS3Builder, buffered::BufWriter, local::LocalFileSystem,
    path::Path, prefix::PrefixStore,
};
use tokio::io::AsyncWriteExt as _;

/// One part of a long blob, in bytes: the smallest that S3 takes, which lets a blob grow to 50 GB.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts under way at once: one is sent while the next one fills.
const PARTS_IN_FLIGHT: usize = 2;

/// Bytes between two parts that are read and thrown away rather than asked for apart.
pub(crate) const GAP_BYTES: u64 = 16 * 1024;
/// Blobs of which parts are read at once for one answer.
const BLOBS_AT_ONCE: usize = 8;

/// Where a place for blobs says which one it is.
pub const IDENTITY: &str = "batchin.id";

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobsPlace {
    /// A folder of this machine, which is made if need be.
    Folder(PathBuf),
    /// A bucket that several nodes share; credentials come from the usual `AWS_*` variables.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// Put before every key; may be empty.
        prefix: String,
    },
}

/// As it is configured.
impl fmt::Display for BlobsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "file:{}", folder.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Why the place for blobs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobsError {
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
    /// A long blob could not be completed.
    #[error("a blob could not be completed")]
    Complete(#[source] std::io::Error),
    /// The blob ends before the part that was asked for does.
    #[error("a stored blob is shorter than its row says")]
    Short,
    /// The folder holds on to what is to go.
    #[error("what an upload left behind cannot be removed")]
    LeftOver(#[source] std::io::Error),
}

impl BlobError {
    /// Whether there is no such blob.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }
}

/// The place for blobs. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Where the blobs lie, if that is a folder.
    folder: Option<PathBuf>,
}

/// A blob that is being written. Its parts do not stay in memory, and nobody sees it before it is complete.
pub struct BlobWriter {
    writer: BufWriter,
    bytes: u64,
    /// Where it can be looked for, in a bucket.
    bucket: Option<(Arc<dyn ObjectStore>, Path)>,
}

impl Blobs {
    /// Opens the place for them.
    pub fn open(place: &BlobsPlace) -> Result<Self, OpenBlobsError> {
        match place {
            BlobsPlace::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(OpenBlobsError::Folder)?;
                let local = LocalFileSystem::new_with_prefix(folder).map_err(OpenBlobsError::Setup)?;
                // A row points at a blob only once the blob is on the disk.
                Ok(Self { store: Arc::new(local.with_fsync(true)), folder: Some(folder.clone()) })
            }
            BlobsPlace::S3 { bucket, prefix } => {
                let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(OpenBlobsError::Setup)?;
                Ok(Self { store: Arc::new(PrefixStore::new(s3, prefix.as_str())), folder: None })
            }
        }
    }

    /// Whether blobs are objects in a bucket: each costs an answer over the network, however small it is.
    pub fn is_bucket(&self) -> bool {
        self.folder.is_none()
    }

    /// Writes a blob whole; durable when this returns.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        self.store.put(&path, body.into()).await.map(drop).map_err(BlobError::Store)
    }

    /// The name that this place was given, if it was given one.
    pub async fn identity(&self) -> Result<Option<String>, BlobError> {
        let path = Path::parse(IDENTITY).map_err(BlobError::Key)?;
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(BlobError::Store(cause)),
        };
        let bytes = found.bytes().await.map_err(BlobError::Store)?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// The name of this place, which is `fresh` if it had none: whoever looks at the same place finds the same.
    pub async fn identity_or(&self, fresh: &str) -> Result<String, BlobError> {
        if let Some(known) = self.identity().await? {
            return Ok(known);
        }
        let path = Path::parse(IDENTITY).map_err(BlobError::Key)?;
        let body = || object_store::PutPayload::from(fresh.to_owned());
        match self.store.put_opts(&path, body(), PutMode::Create.into()).await {
            // Another node was there first.
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
            // A bucket that knows no such condition: the later of two that start together wins, for both.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.store.put(&path, body()).await.map_err(BlobError::Store)?;
            }
            Err(cause) => return Err(BlobError::Store(cause)),
        }
        Ok(self.identity().await?.unwrap_or_else(|| fresh.to_owned()))
    }

    /// Begins a blob of any length.
    pub fn writer(&self, key: &str) -> Result<BlobWriter, BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        let bucket = self.is_bucket().then(|| (Arc::clone(&self.store), path.clone()));
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), path, PART_BYTES);
        Ok(BlobWriter { writer: writer.with_max_concurrency(PARTS_IN_FLIGHT), bytes: 0, bucket })
    }

    /// How long a blob is, in bytes.
    pub async fn size(&self, key: &str) -> Result<u64, BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        self.store.head(&path).await.map(|meta| meta.size).map_err(BlobError::Store)
    }

    /// Reads part of a blob, all of which must be there.
    pub async fn read_exact(&self, range: &BlobRange) -> Result<Bytes, BlobError> {
        let bytes = self.read(range).await?;
        if bytes.len() as u64 == range.len { Ok(bytes) } else { Err(BlobError::Short) }
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

    /// Reads parts of one blob, none of them empty.
    async fn read_parts(&self, key: &str, parts: &[Range<u64>]) -> Result<Vec<Bytes>, BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        if !self.is_bucket() {
            return self.store.get_ranges(&path, parts).await.map_err(BlobError::Store);
        }
        let fetch = move |range: Range<u64>| async move {
            let (offset, len) = (range.start, range.end.saturating_sub(range.start));
            self.read_exact(&BlobRange { blob: key.to_owned(), offset, len }).await
        };
        object_store::coalesce_ranges(parts, fetch, GAP_BYTES).await
    }

    /// Reads parts of any blobs, none of them empty; those of one blob together, and all of them fail where one does.
    pub async fn read_many(&self, ranges: &[&BlobRange]) -> Vec<Result<Bytes, Arc<BlobError>>> {
        let mut by_blob: BTreeMap<String, (Vec<usize>, Vec<Range<u64>>)> = BTreeMap::new();
        for (place, range) in ranges.iter().enumerate() {
            let (places, parts) = by_blob.entry(range.blob.clone()).or_default();
            places.push(place);
            parts.push(range.offset..range.offset.saturating_add(range.len));
        }
        let reads = by_blob.into_iter().map(|(blob, (places, parts))| {
            let blobs = self.clone();
            async move { (places, blobs.read_parts(&blob, &parts).await.map_err(Arc::new)) }
        });
        let mut found = Vec::with_capacity(ranges.len());
        let mut reads = stream::iter(reads).buffer_unordered(BLOBS_AT_ONCE);
        while let Some((places, read)) = reads.next().await {
            match read {
                Ok(parts) => found.extend(places.into_iter().zip(parts.into_iter().map(Ok))),
                Err(cause) => found.extend(places.into_iter().map(|place| (place, Err(Arc::clone(&cause))))),
            }
        }
        found.sort_unstable_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, read)| read).collect()
    }

    /// Forgets the blobs below a folder whose keys are to go; one that is gone already is no error.
    pub async fn delete_in(
        &self,
        folder: &str,
        goes: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Result<(), BlobError> {
        let path = Path::parse(folder).map_err(BlobError::Key)?;
        let listed = self.store.list(Some(&path)).map_ok(|blob| blob.location);
        let going = listed.try_filter(move |location| std::future::ready(goes(location.as_ref()))).boxed();
        let mut gone = self.store.delete_stream(going);
        while let Some(one) = gone.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(cause) => return Err(BlobError::Store(cause)),
            }
        }
        Ok(())
    }

    /// Forgets every blob below a folder.
    pub async fn delete_folder(&self, folder: &str) -> Result<(), BlobError> {
        self.delete_in(folder, |_| true).await?;
        let Some(root) = &self.folder else { return Ok(()) };
        // With what writers that were killed left beside the blobs.
        match tokio::fs::remove_dir_all(root.join(folder)).await {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(BlobError::LeftOver(cause)),
            _ => Ok(()),
        }
    }

    /// Forgets a blob; one that is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let path = Path::parse(key).map_err(BlobError::Key)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(BlobError::Store(cause)),
        }
    }

    /// Forgets a blob and what a process that was killed left of it. In a bucket, parts that were sent before are left
    /// to the bucket's own rule for incomplete uploads.
    pub(crate) async fn clear(&self, key: &str) -> Result<(), BlobError> {
        self.delete(key).await?;
        let Some(folder) = &self.folder else { return Ok(()) };
        // A blob that is not complete lies beside its place, under the first number that is free.
        for number in 1_u32.. {
            match tokio::fs::remove_file(folder.join(format!("{key}#{number}"))).await {
                Ok(()) => {}
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => break,
                Err(cause) => return Err(BlobError::LeftOver(cause)),
            }
        }
        Ok(())
    }
}

impl BlobWriter {
    /// Adds to the blob; waits while the parts before are under way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.bytes += bytes.len() as u64;
        self.writer.put(bytes).await.map_err(BlobError::Store)
    }

    /// Completes the blob; durable when this returns.
    pub async fn finish(&mut self) -> Result<(), BlobError> {
        let Err(cause) = self.writer.shutdown().await else { return Ok(()) };
        // A bucket that completed a blob, and whose answer was lost, knows nothing of the parts when it is asked again.
        if let Some((store, path)) = &self.bucket
            && let Ok(found) = store.head(path).await
            && found.size == self.bytes
        {
            return Ok(());
        }
        Err(BlobError::Complete(cause))
    }

    /// Gives the blob up, with the parts that were sent. Not after [`Self::finish`].
    pub async fn abort(&mut self) -> Result<(), BlobError> {
        self.writer.abort().await.map_err(BlobError::Store)
    }
}
