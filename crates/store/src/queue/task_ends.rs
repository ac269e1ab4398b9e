//! Holds: how a task ends, and where its answer lies.

use batchin_domain::{BatchId, TaskId};

/// Where bytes lie in a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRange {
    /// The blob's key.
    pub blob: String,
    /// Bytes from its beginning.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Where a task's answer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// The answer's body.
    pub body: BlobRange,
    /// Bytes of its output line before the body.
    pub head: u64,
}

/// The end of a task under the claim that it ran with.
#[derive(Clone, Debug)]
pub struct TaskFinish {
    /// Its batch.
    pub batch: BatchId,
    /// Itself.
    pub task: TaskId,
    /// The claim's epoch; an older one is refused.
    pub epoch: i64,
    /// How it ended.
    pub end: TaskEnd,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub enum TaskEnd {
    /// With an answer.
    Completed {
        /// Where the answer lies.
        result: StoredResult,
        /// Completion tokens of it that were hidden reasoning.
        reasoning_tokens: u64,
    },
    /// With an error that trying again does not cure.
    Failed(TaskError),
}

/// What went wrong with a task, in the words of OpenAI's errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// An error code of the API.
    pub code: String,
    /// For the batch's owner to read.
    pub message: String,
    /// The HTTP status of the answer, where there was one.
    pub status: Option<u16>,
    /// The error's `type`, where it is known.
    pub kind: Option<String>,
    /// The field at fault, where it is known.
    pub param: Option<String>,
}
