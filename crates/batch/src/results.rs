//! Holds: writing results so that many share one blob and one `fsync`.
//!
//! A result is written as the line that it has in its batch's output file, so that the file grows with the batch. In a
//! folder it is there when the batch ends, without anything being copied; in a bucket, where each blob is an object that
//! costs an answer over the network, results gather for a moment before they are written (`gathering.rs`).

mod gathering;

use std::{collections::BTreeMap, sync::Arc};

use batchin_domain::{BatchId, IdSource, RequestId, TaskId};
use batchin_files::{BlobError, Blobs};
use batchin_store::{BlobRange, StoredResult};
use batchin_tasks::Tasks;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::error;

use crate::intake::put_on_one_line;

/// Results that may wait for the writer; each belongs to a task that has an answer and room for it.
const QUEUE_LEN: usize = 4_096;
/// The most bytes gathered at once; one large result may exceed it alone.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The most results gathered at once.
const GROUP_RESULTS: usize = 512;
/// What answered tasks may hold in memory until they are durable, in kilobytes: 64 MB.
const ROOM_KB: u32 = 65_536;
/// What a task takes of it beside its bodies, in kilobytes.
const TASK_KB: usize = 4;
/// Where results do not gather, answered tasks that are not durable yet, for each task that may run: a group commit is full
/// while the next one gathers, and what a killed node has to run again is bounded.
const SETTLING: usize = 4;
/// What stands behind the body in a line.
const TAIL: &[u8] = b"},\"error\":null}\n";

/// An answer to be stored.
pub(crate) struct NewResult {
    pub batch: BatchId,
    pub task: TaskId,
    pub custom_id: String,
    pub request: RequestId,
    /// Valid JSON.
    pub body: Bytes,
}

/// Hears where its result lies.
type Waiting = oneshot::Sender<Option<StoredResult>>;
type Job = (NewResult, Waiting);

/// The way to the writer of results. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ResultWriter {
    queue: mpsc::Sender<Job>,
    kilobytes: Arc<Semaphore>,
    /// Where results do not gather.
    settling: Option<Arc<Semaphore>>,
}

/// Room for an answered task until it is durable. Given back when it is dropped.
pub(crate) struct Room {
    _kilobytes: Option<OwnedSemaphorePermit>,
    _settling: Option<OwnedSemaphorePermit>,
}

/// Where the results of a batch lie.
pub(crate) fn folder_of(batch: BatchId) -> String {
    format!("results/{batch}")
}

/// A blob of results of a batch that nobody has written.
fn fresh_key(batch: BatchId, ids: &dyn IdSource) -> String {
    format!("{}/{}", folder_of(batch), ids.uuid())
}

/// The whole line of a result.
pub(crate) fn line_of(result: &StoredResult) -> BlobRange {
    let body = &result.body;
    let head = result.head.min(body.offset);
    BlobRange { blob: body.blob.clone(), offset: body.offset - head, len: head + body.len + TAIL.len() as u64 }
}

impl ResultWriter {
    /// Starts the writer for a node that runs so many tasks at once. It ends when the last clone is gone.
    pub(crate) fn start(blobs: Blobs, ids: Arc<dyn IdSource>, concurrency: usize, tasks: &Tasks) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LEN);
        let gathers = blobs.is_bucket();
        if gathers {
            tasks.spawn("result_writer", move |stop| gathering::write_all(blobs, ids, jobs, stop));
        } else {
            tasks.spawn("result_writer", move |_| write_all(blobs, ids, jobs));
        }
        let settling = concurrency.saturating_mul(SETTLING).clamp(1, Semaphore::MAX_PERMITS);
        let settling = (!gathers).then(|| Arc::new(Semaphore::new(settling)));
        Self { queue, kilobytes: Arc::new(Semaphore::new(ROOM_KB as usize)), settling }
    }

    /// Room for a task whose bodies have so many bytes. With it the task need not count among those that run: the model
    /// servers work on others while its answer becomes durable.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        let wanted = u32::try_from(TASK_KB + bytes / 1_024).unwrap_or(ROOM_KB).min(ROOM_KB);
        // Neither is ever closed.
        let settling = match &self.settling {
            Some(settling) => Arc::clone(settling).acquire_owned().await.ok(),
            None => None,
        };
        Room { _kilobytes: Arc::clone(&self.kilobytes).acquire_many_owned(wanted).await.ok(), _settling: settling }
    }

    /// Stores a result; `None` when that failed, which has been logged.
    pub(crate) async fn write(&self, result: NewResult) -> Option<StoredResult> {
        let (done, wait) = oneshot::channel();
        self.queue.send((result, done)).await.ok()?;
        wait.await.ok()?
    }
}

/// The lines of one batch that are written together.
#[derive(Default)]
struct Segment {
    bytes: BytesMut,
    /// Head, offset and length of each body, and who waits for it.
    waiting: Vec<((u64, u64, u64), Waiting)>,
}

async fn write_all(blobs: Blobs, ids: Arc<dyn IdSource>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let (mut size, mut number) = (0, 0);
        // A blob of its own for each batch, so that a batch can be forgotten whole.
        let mut segments: BTreeMap<BatchId, Segment> = BTreeMap::new();
        let mut next = Some(first);
        while let Some((result, done)) = next.take() {
            size += result.body.len();
            number += 1;
            segments.entry(result.batch).or_default().add(&result, done);
            if size < GROUP_BYTES && number < GROUP_RESULTS {
                next = jobs.try_recv().ok();
            }
        }
        let writes = segments.into_iter().map(|(batch, segment)| {
            let key = fresh_key(batch, &*ids);
            segment.write(&blobs, key)
        });
        join_all(writes).await;
    }
}

impl Segment {
    fn add(&mut self, result: &NewResult, done: Waiting) {
        let began = self.bytes.len();
        let custom_id = serde_json::Value::from(result.custom_id.as_str());
        let head = format!(
            r#"{{"id":"batch_req_{}","custom_id":{custom_id},"response":{{"status_code":200,"request_id":"{}","body":"#,
            result.task.uuid().simple(),
            result.request
        );
        self.bytes.extend_from_slice(head.as_bytes());
        let offset = self.bytes.len();
        put_on_one_line(&mut self.bytes, &result.body);
        let len = self.bytes.len() - offset;
        self.bytes.extend_from_slice(TAIL);
        self.waiting.push((((offset - began) as u64, offset as u64, len as u64), done));
    }

    async fn write(self, blobs: &Blobs, key: String) {
        let written: Result<(), BlobError> = blobs.put(&key, self.bytes.freeze()).await;
        if let Err(cause) = &written {
            error!(error = cause as &dyn std::error::Error, "results could not be stored");
        }
        for ((head, offset, len), done) in self.waiting {
            let body = BlobRange { blob: key.clone(), offset, len };
            // A task that went away meanwhile was cancelled; its result is litter.
            let _ = done.send(written.is_ok().then_some(StoredResult { body, head }));
        }
    }
}
