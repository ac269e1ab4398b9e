//! Holds: writing results so that many share one blob and one `fsync`.

use batchin_domain::IdSource;
use batchin_store::BlobRange;
use batchin_tasks::Tasks;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::{BlobError, Blobs};

/// Results that may wait for the writer; each belongs to a task in flight.
const QUEUE_LEN: usize = 4_096;
/// The most bytes gathered into one blob; one large result may exceed it alone.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// The most results gathered into one blob.
const SEGMENT_RESULTS: usize = 512;

type Job = (Bytes, oneshot::Sender<Option<BlobRange>>);

/// The way to the writer of results. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ResultWriter {
    queue: mpsc::Sender<Job>,
}

impl ResultWriter {
    /// Starts the writer. It ends when the last clone is gone.
    pub(crate) fn start(blobs: Blobs, ids: Arc<dyn IdSource>, tasks: &Tasks) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LEN);
        tasks.spawn("result_writer", move |_| write_all(blobs, ids, jobs));
        Self { queue }
    }

    /// Stores a result; `None` when that failed, which has been logged.
    pub(crate) async fn write(&self, body: Bytes) -> Option<BlobRange> {
        let (done, wait) = oneshot::channel();
        self.queue.send((body, done)).await.ok()?;
        wait.await.ok()?
    }
}

async fn write_all(blobs: Blobs, ids: Arc<dyn IdSource>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let mut size = first.0.len();
        let mut segment = vec![first];
        while size < SEGMENT_BYTES
            && segment.len() < SEGMENT_RESULTS
            && let Ok(job) = jobs.try_recv()
        {
            size += job.0.len();
            segment.push(job);
        }
        let key = format!("results/{}", ids.uuid());
        let written = write_segment(&blobs, &key, &segment, size).await;
        if let Err(cause) = &written {
            error!(error = cause as &dyn std::error::Error, "results could not be stored");
        }
        let mut offset = 0;
        for (body, done) in segment {
            let len = body.len() as u64;
            let range = written.is_ok().then(|| BlobRange { blob: key.clone(), offset, len });
            offset += len + 1;
            // A task that went away meanwhile was cancelled; its result is litter.
            let _ = done.send(range);
        }
    }
}

async fn write_segment(blobs: &Blobs, key: &str, segment: &[Job], size: usize) -> Result<(), BlobError> {
    let mut bytes = BytesMut::with_capacity(size + segment.len());
    for (body, _) in segment {
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\n");
    }
    blobs.put(key, bytes.freeze()).await
}
