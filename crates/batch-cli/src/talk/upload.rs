//! Holds: sending the converted input as a file, streamed from disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::retry::{Failure, answer, persist};
use super::{Client, ClientError, Created, Patience};
use crate::prepare::Prepared;
use crate::progress::Progress;

/// Without a byte moving and without an answer for this long, an upload is begun again. A server that has all bytes
/// may still be writing them to its own storage.
const MAX_STANDSTILL: Duration = Duration::from_secs(180);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);
const PIECE_BYTES: usize = 256 * 1024;
const FILE_NAME: &str = "batch.jsonl";

impl Client {
    /// The id of the file. A file whose answer was lost is sent again; only one of them becomes a batch.
    pub(crate) async fn upload(&self, input: &Prepared, progress: &Progress) -> Result<Created, ClientError> {
        persist(async || self.upload_once(input, progress).await, &self.contact, Patience::Short, progress).await
    }

    async fn upload_once(&self, input: &Prepared, progress: &Progress) -> Result<Created, Failure> {
        let broken = |error| Failure::Final(ClientError::Spool(error));
        // A handle of its own: a try that was given up must not move the place of the next one.
        let file = tokio::fs::File::from_std(input.file.reopen().map_err(broken)?);
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let pieces = ReaderStream::with_capacity(file, PIECE_BYTES).inspect(move |piece| {
            let length = piece.as_ref().map_or(0, |piece| u64::try_from(piece.len()).unwrap_or(0));
            counter.fetch_add(length, Ordering::Relaxed);
        });
        let part = Part::stream_with_length(Body::wrap_stream(pieces), input.bytes).file_name(FILE_NAME);
        let form = Form::new().text("purpose", "batch").part("file", part);
        let request = self.authorized(&self.uploads, Method::POST, "/openai/v1/files").multipart(form);
        tokio::select! {
            answered = answer(request) => answered,
            () = stands_still(&sent, input.bytes, progress) => {
                Err(Failure::Temporary { error: ClientError::Stalled, wait: None })
            }
        }
    }
}

/// Shows how far the upload is, and returns when it has not moved for too long.
async fn stands_still(sent: &AtomicU64, total: u64, progress: &Progress) {
    let mut last = (sent.load(Ordering::Relaxed), Instant::now());
    while last.1.elapsed() < MAX_STANDSTILL {
        tokio::time::sleep(LOOK).await;
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        progress.uploading(now, total);
    }
}
