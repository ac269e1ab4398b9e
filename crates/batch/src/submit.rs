//! Holds: taking a batch in, and what its owner does with it afterwards.

use batchin_domain::{AccountId, BatchId, BatchStatus, TaskId, batch::TaskCounts};
use batchin_gateway::{Caller, Gateway, endpoint_code};
use batchin_store::{
    BatchRow, BlobRange, CancelError, Cancelled, CreateBatchError, IdempotencyScope, NewBatch, NewTask, StoreError,
    StoredAnswer,
};
use bytes::Bytes;
use metrics::counter;
use tracing::{info, warn};

use crate::{BlobError, Blobs, Order, TaskFault};

/// Why a batch was not taken in. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The batch or some of its tasks are not what they should be.
    #[error("the batch has {} fault(s)", .0.len())]
    Invalid(Vec<TaskFault>),
    /// The bodies could not be stored.
    #[error("the batch's bodies could not be stored")]
    Blob(#[source] BlobError),
    /// The batch could not be stored.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

/// Batches. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    gateway: Gateway,
    blobs: Blobs,
}

/// Says what to remember of a batch for its request's Idempotency-Key.
pub type Remember = Box<dyn FnOnce(&BatchRow) -> (IdempotencyScope, StoredAnswer) + Send>;

impl Batches {
    /// Batches that run through this gateway and keep their bodies here.
    pub fn new(gateway: Gateway, blobs: Blobs) -> Self {
        Self { gateway, blobs }
    }

    /// Takes a batch in: every task is checked, the bodies are stored, then the batch is opened in one transaction, which
    /// also remembers the answer, so that nobody who asks again after a crash opens a second batch.
    pub async fn submit(
        &self,
        caller: &Caller,
        body: Bytes,
        remember: Option<Remember>,
    ) -> Result<BatchRow, SubmitError> {
        let order = Order::read(&self.gateway, &body).map_err(SubmitError::Invalid)?;
        let id = BatchId::new(self.gateway.ids().uuid());
        let now = self.gateway.clock().now();
        let input_blob = format!("batches/{id}/input");
        self.blobs.put(&input_blob, order.bodies).await.map_err(SubmitError::Blob)?;
        batchin_faults::point("batch.stored");
        let tasks: Vec<NewTask> = order.tasks.into_iter().map(|task| self.new_task(task)).collect();
        let total = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let row = BatchRow {
            id,
            priority: order.priority,
            status: BatchStatus::Pending,
            counts: TaskCounts { total, ..TaskCounts::default() },
            blocked: None,
            created_at: now,
            finished_at: None,
        };
        let new = NewBatch {
            id,
            account: caller.account,
            key: caller.key,
            priority: order.priority,
            webhook_url: order.webhook_url,
            input_blob: input_blob.clone(),
            tasks,
            answer: remember.map(|remember| remember(&row)),
            now,
        };
        if let Err(CreateBatchError::Store(cause)) = self.gateway.store().create_batch(new).await {
            // The row decides; bodies without one are only litter.
            if let Err(cause) = self.blobs.delete(&input_blob).await {
                warn!(error = &cause as &dyn std::error::Error, "the bodies of a refused batch are left over");
            }
            return Err(SubmitError::Store(cause));
        }
        batchin_faults::point("batch.created");
        counter!("batchin_batches_total", "priority" => order.priority.class().name()).increment(1);
        info!(batch.id = %id, tasks = total, "batch {id} accepted with {total} tasks");
        Ok(row)
    }

    fn new_task(&self, task: crate::intake::OrderTask) -> NewTask {
        NewTask {
            id: TaskId::new(self.gateway.ids().uuid()),
            custom_id: task.custom_id,
            model: task.model,
            endpoint: endpoint_code(task.endpoint),
            body_offset: task.offset,
            body_len: task.len,
        }
    }

    /// A task's answer.
    pub async fn read(&self, range: &BlobRange) -> Result<Bytes, BlobError> {
        self.blobs.read(range).await
    }

    /// Stops a batch.
    pub async fn cancel(&self, account: AccountId, id: BatchId) -> Result<Cancelled, CancelError> {
        self.gateway.store().cancel_batch(account, id, self.gateway.clock().now()).await
    }
}
