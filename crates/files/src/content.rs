//! Holds: reading a file's content as a stream of bounded pieces, some of them ahead.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use batchin_store::{BlobRange, FileContent, FileRow};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::{BlobError, Blobs, Files, blobs::GAP_BYTES, manifest::Line};

/// Bytes of one read. More gains nothing on a disk, less is slow on S3.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Pieces that are read ahead of a client: hides a bucket's answer time, and bounds what a slow client keeps in memory.
const READ_AHEAD: usize = 4;
/// Pieces of many blobs read ahead of whoever copies them: most are small, and a bucket takes its time for each.
const COPY_AHEAD: usize = 16;
/// Bytes of a manifest read at once.
const MANIFEST_BYTES: u64 = 64 * 1024;
/// No line of a manifest is as long.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// A file's content could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A blob could not be read.
    #[error("the file's content could not be read")]
    Blob(#[source] BlobError),
    /// The list of its parts is not what was written, or ends early.
    #[error("the file's list of parts is damaged")]
    Manifest,
}

impl From<BlobError> for ContentError {
    fn from(cause: BlobError) -> Self {
        Self::Blob(cause)
    }
}

impl Files {
    /// The bytes `range` of a file, which lie within its length. The stream ends with an error where a blob is gone.
    pub fn content(
        &self,
        file: &FileRow,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ContentError>> + Send + 'static {
        let blobs = self.parts.blobs.clone();
        let reads = match file.content {
            FileContent::Blob => stream::iter(split(Arc::from(file.blob.as_str()), range).map(Ok)).left_stream(),
            FileContent::Manifest => listed(blobs.clone(), file.blob.clone(), range).right_stream(),
        };
        reads.map_ok(move |read| fetch(blobs.clone(), read)).try_buffered(READ_AHEAD)
    }
}

impl Blobs {
    /// What lies in these ranges, one after the other, as a stream of bounded pieces. Ranges of one blob stand together,
    /// in order.
    pub fn content(
        &self,
        ranges: &[BlobRange],
    ) -> impl Stream<Item = Result<Bytes, ContentError>> + Send + use<> + 'static {
        let (blobs, mut reads, mut left) = (self.clone(), Vec::new(), u64::MAX);
        for same in ranges.chunk_by(|one, next| one.blob == next.blob) {
            let ranges = same.iter().map(|range| (range.offset, range.len)).collect();
            let line = Line { blob: same[0].blob.clone(), ranges };
            match reads_of(line, &mut 0, &mut left) {
                Ok(more) => reads.extend(more.into_iter().map(Ok)),
                Err(cause) => reads.push(Err(cause)),
            }
        }
        stream::iter(reads).map_ok(move |read| fetch(blobs.clone(), read)).try_buffered(COPY_AHEAD)
    }
}

/// One read of a blob, and the parts of it that are content.
struct Read {
    blob: Arc<str>,
    parts: Vec<Range<u64>>,
}

impl Read {
    fn span(&self) -> Range<u64> {
        let start = self.parts.first().map_or(0, |part| part.start);
        start..self.parts.last().map_or(start, |part| part.end)
    }

    /// Takes a part that lies close behind; gives back one that does not.
    fn join(&mut self, part: Range<u64>) -> Result<(), Range<u64>> {
        let span = self.span();
        let is_close = part.start >= span.end && part.start - span.end <= GAP_BYTES;
        if !is_close || part.end - span.start > PIECE_BYTES {
            return Err(part);
        }
        match self.parts.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => self.parts.push(part),
        }
        Ok(())
    }
}

async fn fetch(blobs: Blobs, read: Read) -> Result<Bytes, ContentError> {
    let span = read.span();
    let range = BlobRange { blob: read.blob.to_string(), offset: span.start, len: span.end - span.start };
    let bytes = blobs.read_exact(&range).await?;
    if read.parts.len() == 1 {
        return Ok(bytes);
    }
    let mut content = BytesMut::with_capacity(bytes.len());
    for part in read.parts {
        // Both ends lie within what was read, which is no longer than a piece.
        let within = usize::try_from(part.start - span.start).ok().zip(usize::try_from(part.end - span.start).ok());
        let part = within.and_then(|(start, end)| bytes.get(start..end)).ok_or(ContentError::Manifest)?;
        content.extend_from_slice(part);
    }
    Ok(content.freeze())
}

/// A long range as reads of bounded length.
fn split(blob: Arc<str>, range: Range<u64>) -> impl Iterator<Item = Read> + Send {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min(at.saturating_add(PIECE_BYTES));
        let part = (at < end).then_some(at..end)?;
        at = end;
        Some(Read { blob: Arc::clone(&blob), parts: vec![part] })
    })
}

/// The reads of a line's ranges, close ones joined; `skip` bytes are left out first, and `left` are taken after that.
fn reads_of(line: Line, skip: &mut u64, left: &mut u64) -> Result<VecDeque<Read>, ContentError> {
    let blob: Arc<str> = line.blob.into();
    let mut reads: VecDeque<Read> = VecDeque::new();
    for (offset, len) in line.ranges {
        let end = offset.checked_add(len).ok_or(ContentError::Manifest)?;
        let skipped = len.min(*skip);
        *skip -= skipped;
        let taken = (len - skipped).min(*left);
        *left -= taken;
        let start = end - (len - skipped);
        for read in split(Arc::clone(&blob), start..start + taken) {
            let joined = match reads.back_mut() {
                Some(last) => read.parts.into_iter().try_for_each(|part| last.join(part)),
                None => read.parts.into_iter().try_for_each(Err),
            };
            if let Err(part) = joined {
                reads.push_back(Read { blob: Arc::clone(&blob), parts: vec![part] });
            }
        }
        if *left == 0 {
            break;
        }
    }
    Ok(reads)
}

/// A manifest that is being read.
struct Lines {
    blobs: Blobs,
    manifest: Range<u64>,
    key: String,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no end of a line.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Line>, ContentError> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(length) = found {
                let line = self.buffer.split_to(self.searched + length + 1);
                self.searched = 0;
                return serde_json::from_slice(&line).map(Some).map_err(|_| ContentError::Manifest);
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(ContentError::Manifest);
            }
            if self.manifest.is_empty() {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ContentError::Manifest) };
            }
            let len = (self.manifest.end - self.manifest.start).min(MANIFEST_BYTES);
            let range = BlobRange { blob: self.key.clone(), offset: self.manifest.start, len };
            let bytes = self.blobs.read_exact(&range).await?;
            self.manifest.start += len;
            self.buffer.extend_from_slice(&bytes);
        }
    }
}

/// What of a manifest's content is still to come.
struct Walk {
    lines: Lines,
    reads: VecDeque<Read>,
    skip: u64,
    left: u64,
}

/// The reads of a range of a manifest's content.
fn listed(blobs: Blobs, key: String, range: Range<u64>) -> impl Stream<Item = Result<Read, ContentError>> + Send {
    let opened = async move {
        let size = blobs.size(&key).await?;
        let lines = Lines { blobs, manifest: 0..size, key, buffer: BytesMut::new(), searched: 0 };
        let left = range.end.saturating_sub(range.start);
        Ok::<_, ContentError>(Walk { lines, reads: VecDeque::new(), skip: range.start, left })
    };
    stream::once(opened).map_ok(|walk| stream::try_unfold(walk, step)).try_flatten()
}

async fn step(mut walk: Walk) -> Result<Option<(Read, Walk)>, ContentError> {
    loop {
        if let Some(read) = walk.reads.pop_front() {
            return Ok(Some((read, walk)));
        }
        if walk.left == 0 {
            return Ok(None);
        }
        // Less than the row promised.
        let line = walk.lines.next().await?.ok_or(ContentError::Manifest)?;
        walk.reads = reads_of(line, &mut walk.skip, &mut walk.left)?;
    }
}
