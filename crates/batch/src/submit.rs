//! Holds: taking a batch in, and what its owner does with it afterwards.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use batchin_domain::{
    AccountId, Amount, BatchId, FileId, FilePurpose, Measure, Priority, TaskId,
    webhook::{TargetFault, TargetPolicy},
};
use batchin_files::{BlobError, Blobs, Files, WriteFileError};
use batchin_gateway::{Caller, Gateway};
use batchin_store::{
    BatchRow, BatchTerms, BlobRange, CancelError, Cancelled, CreateBatchError, Endings, FileContent, FileRow,
    IdempotencyScope, NewBatch, NewTask, NewTasks, Openings, StoreError, StoredAnswer,
};
use bytes::Bytes;
use metrics::counter;
use tokio::sync::{Notify, Semaphore};
use tracing::{info, warn};

use crate::{
    CheckedTask, LineFault, Order, RawTerms, TaskFault,
    input::InputError,
    reading::{Question, Verdict, read},
};

/// An inline batch up to so many bytes is read where it arrives: in less time than another thread takes to begin.
const READ_AT_ONCE: usize = 16 << 10;
/// Longer ones that are read at once: reading is all processor, which people's requests need too.
const READERS: usize = 1;
/// How long the input of a batch is kept that its owner said nothing about: as long as OpenAI keeps it.
const INPUT_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why a batch was not taken in. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The batch or some of its tasks are not what they should be.
    #[error("the batch has {} fault(s)", .0.len())]
    Invalid(Vec<TaskFault>),
    /// Lines of its file are not what they should be.
    #[error("the batch's file has {} fault(s)", .0.len())]
    BadLines(Vec<LineFault>),
    /// There is no such file, or it is somebody else's, deleted or expired.
    #[error("there is no such input file")]
    NoFile,
    /// The account has as many batches that have not ended as it may.
    #[error("the account has {open} open batches")]
    TooManyOpen {
        /// How many it has.
        open: u64,
        /// How many it may have.
        most: u64,
        /// Whether more are allowed to who has credit.
        unpaid: bool,
    },
    /// The bodies could not be stored.
    #[error("the batch's bodies could not be stored")]
    File(#[source] WriteFileError),
    /// The file could not be read.
    #[error("the batch's file could not be read")]
    Blob(#[source] BlobError),
    /// The server ends.
    #[error("the batch was not read to its end")]
    Stopped,
    /// The batch could not be stored.
    #[error("the batch could not be stored")]
    Store(#[source] StoreError),
}

/// A batch that is to be made of a file.
#[derive(Clone, Debug)]
pub struct FileOrder {
    /// The file.
    pub file: FileId,
    /// What its owner asks of it.
    pub terms: BatchTerms,
}

/// What a batch will cost, before it is made.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    /// How many tasks there are.
    pub tasks: u64,
    /// Prompt tokens, roughly.
    pub input_tokens: u64,
    /// The most that it can cost.
    pub max_cost: Option<Amount>,
    /// What it will cost, roughly.
    pub expected_cost: Option<Amount>,
    /// The same for each model by its id.
    pub models: BTreeMap<String, Estimate>,
}

/// How many batches of an account may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenLimits {
    /// With credit.
    pub funded: u64,
    /// Without any: enough to try things out, and little for every node to look at.
    pub unfunded: u64,
}

impl Default for OpenLimits {
    fn default() -> Self {
        Self { funded: 1_000, unfunded: 10 }
    }
}

/// Batches. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    gateway: Gateway,
    openings: Openings,
    endings: Endings,
    blobs: Blobs,
    files: Files,
    /// Tells this node's steward, if it has one, that there is something to do.
    wake: Arc<Notify>,
    /// Where webhooks may go.
    targets: Arc<TargetPolicy>,
    limits: OpenLimits,
    /// Places for reading long inline batches.
    reading: Arc<Semaphore>,
}

/// Says what to remember of a batch for its request's Idempotency-Key.
pub type Remember = Box<dyn FnOnce(&BatchRow) -> (IdempotencyScope, StoredAnswer) + Send>;

impl Batches {
    /// Batches that run through this gateway and keep their bodies here.
    pub fn new(gateway: Gateway, (openings, endings): (Openings, Endings), blobs: Blobs, files: Files) -> Self {
        Self {
            gateway,
            openings,
            endings,
            blobs,
            files,
            wake: Arc::new(Notify::new()),
            targets: Arc::default(),
            limits: OpenLimits::default(),
            reading: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// With these in place of the strictest rules on where webhooks may go.
    #[must_use]
    pub fn with_webhook_targets(mut self, targets: TargetPolicy) -> Self {
        self.targets = Arc::new(targets);
        self
    }

    /// Whether webhooks may go to this URL.
    pub fn check_webhook(&self, url: &str) -> Result<(), TargetFault> {
        self.targets.check(url).map(drop)
    }

    /// With these in place of the usual limits.
    #[must_use]
    pub fn with_open_limits(mut self, limits: OpenLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether the account may open one more. Several at once may pass together; it bounds what waits, not what is spent.
    async fn has_room(&self, account: AccountId) -> Result<(), SubmitError> {
        let (open, funded) = self.openings.open_batches(account).await.map_err(SubmitError::Store)?;
        let most = if funded { self.limits.funded } else { self.limits.unfunded };
        if open < most { Ok(()) } else { Err(SubmitError::TooManyOpen { open, most, unpaid: !funded }) }
    }

    /// Checks what is asked of a batch, by this server's rules.
    pub fn check_terms(&self, terms: &RawTerms<'_>, default: Priority, faults: &mut Vec<TaskFault>) -> BatchTerms {
        terms.check(&self.targets, default, faults)
    }

    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// Takes a batch in: every task is checked, the bodies are stored, then the batch is opened in one transaction, which
    /// also remembers the answer, so that nobody who asks again after a crash opens a second batch.
    pub async fn submit(
        &self,
        caller: &Caller,
        body: Bytes,
        remember: Option<Remember>,
    ) -> Result<BatchRow, SubmitError> {
        self.has_room(caller.account).await?;
        let Order { terms, lines, tasks } = self.order(body).await?;
        let id = BatchId::new(self.gateway.ids().uuid());
        let file = self.keep(caller.account, id, lines).await.map_err(SubmitError::File)?;
        batchin_faults::point("batch.stored");
        let total = tasks.len();
        let new_task = |task: crate::intake::OrderTask| NewTask {
            id: TaskId::new(self.gateway.ids().uuid()),
            custom_id: task.custom_id,
            model: task.checked.model,
            call: task.call,
            body_offset: task.offset,
            body_len: task.len,
        };
        let tasks = NewTasks::Inline(tasks.into_iter().map(new_task).collect());
        let row = self.open(caller, id, (terms, tasks, &file), remember).await;
        if row.is_err()
            && let Err(cause) = self.files.delete(caller.account, file.id).await
        {
            // Its owner sees it in the list of files, and it goes by itself.
            warn!(error = &cause as &dyn std::error::Error, "the file of a refused batch is left over");
        }
        info!(batch.id = %id, tasks = total, "batch {id} accepted with {total} tasks");
        row
    }

    /// Opens a batch whose file is yet to be read.
    pub async fn submit_file(
        &self,
        caller: &Caller,
        order: FileOrder,
        remember: Option<Remember>,
    ) -> Result<BatchRow, SubmitError> {
        self.files.check_disk().map_err(SubmitError::File)?;
        let file = self.input(caller.account, order.file).await?;
        self.has_room(caller.account).await?;
        let id = BatchId::new(self.gateway.ids().uuid());
        self.open(caller, id, (order.terms, NewTasks::File, &file), remember).await
    }

    /// Reads an inline batch. One of many megabytes takes its time, in which a thread that serves everybody must not stand.
    async fn order(&self, body: Bytes) -> Result<Order, SubmitError> {
        let (gateway, targets) = (self.gateway.clone(), Arc::clone(&self.targets));
        if body.len() <= READ_AT_ONCE {
            return Order::read(&gateway, &targets, &body).map_err(SubmitError::Invalid);
        }
        let place = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| SubmitError::Stopped)?;
        let read = tokio::task::spawn_blocking(move || {
            // Held until it is read, also when nobody waits for it any more.
            let _place = place;
            Order::read(&gateway, &targets, &body)
        });
        read.await.map_err(|_| SubmitError::Stopped)?.map_err(SubmitError::Invalid)
    }

    /// What an inline batch would cost.
    pub async fn estimate(&self, body: Bytes) -> Result<Estimate, SubmitError> {
        let order = self.order(body).await?;
        let mut estimate = Estimate::default();
        order.tasks.into_iter().for_each(|task| estimate.add(task.checked));
        Ok(estimate)
    }

    /// What a batch of this file would cost. Reads all of it.
    pub async fn estimate_file(
        &self,
        caller: &Caller,
        file: FileId,
        priority: Priority,
    ) -> Result<Estimate, SubmitError> {
        let file = self.input(caller.account, file).await?;
        let question = Question { blob: file.blob, priority, call: None };
        let mut estimate = Estimate::default();
        match read(&self.gateway, &self.blobs, question, |task| estimate.add(task)).await {
            Ok(Verdict::Good { .. }) => Ok(estimate),
            Ok(Verdict::Bad(faults)) => Err(SubmitError::BadLines(faults)),
            Err(InputError::Blob(cause)) => Err(SubmitError::Blob(cause)),
            // Said as a fault of its line.
            Err(InputError::TooLong { .. }) => Ok(estimate),
        }
    }

    /// A file that can be a batch's input.
    async fn input(&self, account: AccountId, id: FileId) -> Result<FileRow, SubmitError> {
        let file = self.files.show(account, id).await.map_err(SubmitError::Store)?.ok_or(SubmitError::NoFile)?;
        if file.purpose != FilePurpose::Batch || file.content != FileContent::Blob {
            let message = "must be a file with the purpose \"batch\"".to_owned();
            return Err(SubmitError::Invalid(vec![TaskFault { param: "input_file_id".to_owned(), message }]));
        }
        Ok(file)
    }

    /// Keeps an inline batch's tasks as a file.
    async fn keep(&self, account: AccountId, id: BatchId, lines: Bytes) -> Result<FileRow, WriteFileError> {
        let mut upload = self.files.begin_claimed(account, lines.len() as u64).await?;
        upload.write(lines).await?;
        upload.finish(FilePurpose::Batch, format!("batch_{id}_input.jsonl"), Some(INPUT_KEPT)).await
    }

    async fn open(
        &self,
        caller: &Caller,
        id: BatchId,
        (terms, tasks, file): (BatchTerms, NewTasks, &FileRow),
        remember: Option<Remember>,
    ) -> Result<BatchRow, SubmitError> {
        let mut new = NewBatch {
            id,
            account: caller.account,
            key: caller.key,
            terms,
            input_blob: file.blob.clone(),
            input_file: Some(file.id),
            tasks,
            answer: None,
            now: self.gateway.clock().now(),
        };
        let row = new.row();
        new.answer = remember.map(|remember| remember(&row));
        match self.openings.create_batch(new).await {
            Ok(()) => {}
            Err(CreateBatchError::NoFile) => return Err(SubmitError::NoFile),
            Err(CreateBatchError::Store(cause)) => return Err(SubmitError::Store(cause)),
        }
        batchin_faults::point("batch.created");
        counter!("batchin_batches_total", "priority" => row.terms.priority.class().name()).increment(1);
        self.wake.notify_one();
        Ok(row)
    }

    /// Tasks' answers, in the order of the ranges.
    pub async fn read(&self, ranges: &[&BlobRange]) -> Result<Vec<Bytes>, Arc<BlobError>> {
        self.blobs.read_many(ranges).await.into_iter().collect()
    }

    /// Stops a batch.
    pub async fn cancel(&self, account: AccountId, id: BatchId) -> Result<Cancelled, CancelError> {
        let cancelled = self.endings.cancel_batch(account, id, self.gateway.clock().now()).await;
        self.wake.notify_one();
        cancelled
    }
}

impl Estimate {
    fn add(&mut self, task: CheckedTask) {
        self.count(&task);
        self.models.entry(task.model.clone()).or_default().count(&task);
    }

    fn count(&mut self, task: &CheckedTask) {
        let sum = |sum: Option<Amount>, more: Amount| Some(sum.map_or(more, |sum| sum.saturating_add(more)));
        self.tasks += 1;
        self.input_tokens = self.input_tokens.saturating_add(task.expected.of(Measure::PromptTokens));
        self.max_cost = sum(self.max_cost, task.max_cost);
        self.expected_cost = sum(self.expected_cost, task.expected_cost);
    }
}
