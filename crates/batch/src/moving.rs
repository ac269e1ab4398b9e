//! Holds: moving the results of a batch that ends into few large blobs, where they lie in a bucket.
//!
//! While a batch runs, its results lie in as many objects as it took time, and each costs a reader an answer of the
//! bucket. A result is moved in this order: its line is durable in the new blob, its row says so, its old blob goes.
//! Whoever dies in between leaves rows of which each leads to a line that is there.

use batchin_domain::{BatchId, IdSource, TaskId};
use batchin_files::{BlobError, BlobWriter, Blobs, ContentError};
use batchin_store::{BlobRange, ChoreError, Chores, MovedResult, NodeIdentity, StoredResult};
use futures::TryStreamExt as _;
use tracing::warn;

use crate::results::{folder_of, line_of};

/// Results of one blob: bounds what is remembered until the blob is whole.
const MOST_RESULTS: usize = 100_000;
/// Bytes after which a blob has enough: a reader asks for pieces anyhow, and with a page more it is far from what a
/// bucket takes.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;
/// Rows changed in one transaction: few enough that no request waits long behind them.
const PIECE: usize = 1_000;

/// Why results were not moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    /// The new blob could not be written.
    #[error("the blob that results move into could not be written")]
    Blob(#[source] BlobError),
    /// Results could not be copied.
    #[error("results could not be copied")]
    Content(#[source] ContentError),
    /// A row could not say where its result is now, or the batch is another node's to close.
    #[error("a row could not say where its result is now")]
    Chore(#[source] ChoreError),
}

/// The blobs that a batch's results are moved into.
pub(crate) struct Moving<'a> {
    chores: &'a Chores,
    blobs: &'a Blobs,
    ids: &'a dyn IdSource,
    node: NodeIdentity,
    batch: BatchId,
    open: Option<Open>,
}

/// A blob that is being written.
struct Open {
    key: String,
    writer: BlobWriter,
    bytes: u64,
    moved: Vec<MovedResult>,
}

/// How the keys of blobs begin that results are moved into.
fn moved_into(batch: BatchId) -> String {
    format!("{}/all-", folder_of(batch))
}

impl<'a> Moving<'a> {
    /// Nothing has been moved yet.
    pub(crate) fn new(
        (chores, blobs, ids): (&'a Chores, &'a Blobs, &'a dyn IdSource),
        (node, batch): (NodeIdentity, BatchId),
    ) -> Self {
        Self { chores, blobs, ids, node, batch, open: None }
    }

    /// Moves results, those of one blob together and in order; where their lines lie once all is finished. What somebody
    /// moved before, who did not come to the batch's end, stays.
    pub(crate) async fn take(&mut self, results: Vec<(TaskId, StoredResult)>) -> Result<Vec<BlobRange>, MoveError> {
        let moved = moved_into(self.batch);
        let (stays, goes): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|(_, result)| result.body.blob.starts_with(&moved));
        let mut lines: Vec<BlobRange> = stays.iter().map(|(_, result)| line_of(result)).collect();
        if goes.is_empty() {
            return Ok(lines);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(format!("{moved}{}", self.ids.uuid()))?,
        };
        let from = open.bytes;
        let copied = open.copy(self.blobs, &goes).await;
        lines.push(BlobRange { blob: open.key.clone(), offset: from, len: open.bytes - from });
        let is_full = open.bytes >= MOST_BYTES || open.moved.len() >= MOST_RESULTS;
        self.open = Some(open);
        copied?;
        if is_full {
            self.complete().await?;
        }
        Ok(lines)
    }

    fn begin(&self, key: String) -> Result<Open, MoveError> {
        let writer = self.blobs.writer(&key).map_err(MoveError::Blob)?;
        Ok(Open { key, writer, bytes: 0, moved: Vec::new() })
    }

    /// All that was taken is where it was said to be when this returns, and the rows say so.
    pub(crate) async fn complete(&mut self) -> Result<(), MoveError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.writer.finish().await.map_err(MoveError::Blob)?;
        batchin_faults::point("results.copied");
        for piece in open.moved.chunks(PIECE) {
            let moved = self.chores.move_results(self.node, self.batch, (&open.key, piece)).await;
            moved.map_err(MoveError::Chore)?;
        }
        batchin_faults::point("results.moved");
        Ok(())
    }

    /// Every result of the batch has been taken and is complete: the blobs where they lay before go.
    pub(crate) async fn forget_old(self) {
        let moved = moved_into(self.batch);
        // No row leads to them, and none ever will again.
        let deleted = self.blobs.delete_in(&folder_of(self.batch), move |key| !key.starts_with(&moved)).await;
        if let Err(cause) = deleted {
            warn!(error = &cause as &dyn std::error::Error, "blobs whose results have moved go with their batch");
        }
    }

    /// Leaves off. What was moved stays moved.
    pub(crate) async fn give_up(mut self) {
        let Some(mut open) = self.open.take() else { return };
        if let Err(cause) = open.writer.abort().await {
            warn!(error = &cause as &dyn std::error::Error, "parts of results that were to be moved are left over");
        }
    }
}

impl Open {
    async fn copy(&mut self, blobs: &Blobs, results: &[(TaskId, StoredResult)]) -> Result<(), MoveError> {
        let lines: Vec<BlobRange> = results.iter().map(|(_, result)| line_of(result)).collect();
        let mut content = blobs.content(&lines);
        while let Some(bytes) = content.try_next().await.map_err(MoveError::Content)? {
            self.writer.write(bytes).await.map_err(MoveError::Blob)?;
        }
        for ((task, result), line) in results.iter().zip(&lines) {
            let StoredResult { body, head } = result;
            self.moved.push(MovedResult { task: *task, offset: self.bytes + head, len: body.len, head: *head });
            self.bytes += line.len;
        }
        Ok(())
    }
}
