//! Holds: a batch's file as a stream of lines, with bounded memory however long it is.

use batchin_files::{BlobError, Blobs};
use batchin_store::BlobRange;
use bytes::{Bytes, BytesMut};

/// Bytes read at once.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Longest line, in bytes: as long as the largest body of a request, and a little for what stands around it.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// One line that is not blank.
pub(crate) struct InputLine {
    /// Its number in the file, from one.
    pub number: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Itself, without its end.
    pub text: Bytes,
}

/// Why the next line could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The file could not be read.
    #[error("the batch's file could not be read")]
    Blob(#[source] BlobError),
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error("a line is too long")]
    TooLong {
        /// Its number in the file, from one.
        number: u64,
    },
}

/// Reads a blob line by line.
pub(crate) struct Input {
    blobs: Blobs,
    blob: String,
    /// Bytes of the blob.
    size: u64,
    /// Bytes read from the blob.
    read: u64,
    /// What was read and not given out.
    buffer: BytesMut,
    /// How much of `buffer` is known to have no line's end.
    searched: usize,
    number: u64,
}

impl Input {
    /// Lines of the blob from byte `from` on, which is where a line begins.
    pub(crate) async fn open(blobs: Blobs, blob: String, from: u64) -> Result<Self, BlobError> {
        let size = blobs.size(&blob).await?;
        Ok(Self { blobs, blob, size, read: from, buffer: BytesMut::new(), searched: 0, number: 0 })
    }

    /// How many bytes of the blob have been given out, blank lines included.
    pub(crate) fn used(&self) -> u64 {
        self.read - self.buffer.len() as u64
    }

    /// The next line that is not blank; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<InputLine>, InputError> {
        loop {
            let offset = self.used();
            let Some(mut text) = self.line().await? else { return Ok(None) };
            self.number += 1;
            if text.last() == Some(&b'\r') {
                text.truncate(text.len() - 1);
            }
            // Some editors begin a file with a mark that is no part of its text.
            let mark = if offset == 0 && text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let text = text.slice(mark..);
            if !text.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(InputLine { number: self.number, offset: offset + mark as u64, text }));
            }
        }
    }

    /// Everything up to the next line's end or the blob's.
    async fn line(&mut self) -> Result<Option<Bytes>, InputError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE_BYTES {
                return Err(InputError::TooLong { number: self.number + 1 });
            }
            if self.read >= self.size {
                self.searched = 0;
                let rest = self.buffer.split().freeze();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            let len = PIECE_BYTES.min(self.size - self.read);
            let range = BlobRange { blob: self.blob.clone(), offset: self.read, len };
            let piece = self.blobs.read_exact(&range).await.map_err(InputError::Blob)?;
            self.read += len;
            self.buffer.extend_from_slice(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use batchin_files::BlobsPlace;

    use super::*;

    async fn lines(text: &[u8], from: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&BlobsPlace::Folder(folder.path().to_owned())).unwrap();
        blobs.put("in", Bytes::copy_from_slice(text)).await.unwrap();
        let mut input = Input::open(blobs, "in".to_owned(), from).await.unwrap();
        let mut lines = Vec::new();
        while let Some(line) = input.next().await.unwrap() {
            lines.push((line.number, line.offset, line.text.to_vec()));
        }
        assert_eq!(input.used(), text.len() as u64);
        lines
    }

    #[tokio::test]
    async fn lines_know_their_places_and_blank_ones_count() {
        let text = b"\xef\xbb\xbfone\r\n\n  \ntwo\nthree";
        let read = lines(text, 0).await;
        let expected = [(1, 3, b"one".to_vec()), (4, 12, b"two".to_vec()), (5, 16, b"three".to_vec())];
        assert_eq!(read, expected);
        assert_eq!(lines(text, 12).await, [(1, 12, b"two".to_vec()), (2, 16, b"three".to_vec())]);
        assert!(lines(b"", 0).await.is_empty());
        assert!(lines(b"\n\n", 0).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_may_span_pieces() {
        let long = vec![b'x'; usize::try_from(PIECE_BYTES).unwrap() * 2 + 7];
        let mut text = b"a\n".to_vec();
        text.extend_from_slice(&long);
        text.extend_from_slice(b"\nb\n");
        let read = lines(&text, 0).await;
        assert_eq!((read.len(), read[1].2.len(), read[2].1), (3, long.len(), long.len() as u64 + 3));
    }
}
