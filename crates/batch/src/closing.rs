//! Holds: putting together what came of a batch: a file of its results, a file of its errors.
//!
//! The results are stored already, as lines; their file lists where, once a bucket has them in few large blobs. Errors
//! are written out from the tasks' rows.
//! Both files have names that follow from the batch, so that a second try after a crash makes no second file.

use std::time::Duration;

use batchin_domain::{BatchId, FileId, FilePurpose, IdSource, RequestId, TaskId, TaskStatus};
use batchin_files::{BlobError, Blobs, Files, ManifestWriter, NewOutput, Upload, WriteFileError};
use batchin_openai::Code;
use batchin_store::{
    BatchFiles, BatchRow, BatchRows, Chores, NodeIdentity, StoreError, StoredResult, TaskError, TaskRow,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    moving::{MoveError, Moving},
    results::{NewResult, ResultWriter, line_of},
};

/// Tasks read at once.
const PAGE: u32 = 2_000;
/// Results written again at once; the writer gathers them.
const REWRITTEN_AT_ONCE: usize = 512;
/// Which of a batch's files: what its id differs in from the batch's.
const OUTPUT: u128 = 1;
const ERRORS: u128 = 2;

/// Why the files could not be put together now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseError {
    /// The tasks could not be read.
    #[error("the batch's tasks could not be read")]
    Store(#[source] StoreError),
    /// A file could not be written.
    #[error("a file of the batch could not be written")]
    File(#[source] WriteFileError),
    /// A result could not be read.
    #[error("a result could not be read")]
    Blob(#[source] BlobError),
    /// The results could not be moved.
    #[error("the batch's results could not be moved")]
    Move(#[source] MoveError),
    /// A result could not be written again.
    #[error("a result could not be written again")]
    Result,
}

/// Where files are made of.
pub(crate) struct Closing<'a> {
    pub rows: &'a BatchRows,
    pub chores: &'a Chores,
    pub files: &'a Files,
    pub blobs: &'a Blobs,
    pub results: &'a ResultWriter,
    pub ids: &'a dyn IdSource,
    /// How long files are kept whose batch does not say.
    pub retention: Duration,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    id: String,
    custom_id: &'a str,
    response: Option<ErrorResponse<'a>>,
    error: Option<PlainError<'a>>,
}

#[derive(Serialize)]
struct ErrorResponse<'a> {
    status_code: u16,
    request_id: String,
    body: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: FullError<'a>,
}

#[derive(Serialize)]
struct FullError<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

#[derive(Serialize)]
struct PlainError<'a> {
    code: &'a str,
    message: &'a str,
}

impl Closing<'_> {
    /// Writes both files; one without a line is none. In a bucket, the results have moved when this returns.
    pub(crate) async fn files_of(&self, node: NodeIdentity, batch: &BatchRow) -> Result<BatchFiles, CloseError> {
        let into = (self.chores, self.blobs, self.ids);
        let mut moving = self.blobs.is_bucket().then(|| Moving::new(into, (node, batch.id)));
        let written = self.write_files(batch, moving.as_mut()).await;
        match (moving, &written) {
            (Some(moving), Ok(_)) => moving.forget_old().await,
            (Some(moving), Err(_)) => moving.give_up().await,
            (None, _) => {}
        }
        written
    }

    async fn write_files(
        &self,
        batch: &BatchRow,
        mut moving: Option<&mut Moving<'_>>,
    ) -> Result<BatchFiles, CloseError> {
        let (mut output, mut errors) = (None, None);
        let mut after = 0;
        loop {
            let page = self.rows.ended_tasks(batch.id, after, PAGE).await.map_err(CloseError::Store)?;
            let Some(last) = page.last().and_then(|task| task.seq) else { break };
            after = last;
            let (good, bad): (Vec<_>, Vec<_>) = page.into_iter().partition(|task| task.status == TaskStatus::Completed);
            self.list(batch, good, (&mut output, moving.as_deref_mut())).await?;
            self.write(batch, &bad, &mut errors).await?;
        }
        // Before a file that its owner sees lists them.
        if let Some(moving) = moving {
            moving.complete().await.map_err(CloseError::Move)?;
        }
        let mut files = BatchFiles::default();
        if let Some(output) = output {
            files.output = Some(output.finish().await.map_err(CloseError::File)?.id);
        }
        if let Some(errors) = errors {
            let name = format!("batch_{}_errors.jsonl", batch.id);
            let row = errors.finish(FilePurpose::BatchOutput, name, Some(self.kept(batch))).await;
            files.error = Some(row.map_err(CloseError::File)?.id);
        }
        Ok(files)
    }

    /// How long a batch's files are kept.
    pub(crate) fn kept(&self, batch: &BatchRow) -> Duration {
        batch.terms.output_seconds.map_or(self.retention, |seconds| Duration::from_secs(u64::from(seconds)))
    }

    async fn list(
        &self,
        batch: &BatchRow,
        tasks: Vec<TaskRow>,
        (output, moving): (&mut Option<ManifestWriter>, Option<&mut Moving<'_>>),
    ) -> Result<(), CloseError> {
        let results = stream::iter(tasks.into_iter().map(|task| self.result(batch.id, task)));
        let mut results: Vec<_> = results.buffered(REWRITTEN_AT_ONCE).try_collect().await?;
        // Tasks that ended together lie together, if not always in this order.
        results.sort_unstable_by(|(_, a), (_, b)| (&a.body.blob, a.body.offset).cmp(&(&b.body.blob, b.body.offset)));
        let lines = match moving {
            Some(moving) => moving.take(results).await.map_err(CloseError::Move)?,
            None => results.iter().map(|(_, result)| line_of(result)).collect(),
        };
        for line in &lines {
            if output.is_none() {
                let new = NewOutput {
                    id: file_of(batch.id, OUTPUT),
                    account: batch.account,
                    purpose: FilePurpose::BatchOutput,
                    filename: format!("batch_{}_output.jsonl", batch.id),
                    expires_after: Some(self.kept(batch)),
                };
                *output = Some(self.files.create_from_manifest(new).await.map_err(CloseError::File)?);
            }
            if let Some(output) = output {
                output.push(line).await.map_err(CloseError::File)?;
            }
        }
        Ok(())
    }

    /// A task's result as a line. A result of the time before results were lines is written again.
    async fn result(&self, batch: BatchId, task: TaskRow) -> Result<(TaskId, StoredResult), CloseError> {
        let result = task.result.ok_or(CloseError::Result)?;
        if result.head > 0 {
            return Ok((task.id, result));
        }
        let body = self.blobs.read(&result.body).await.map_err(CloseError::Blob)?;
        let request = RequestId::new(task.id.uuid());
        let new = NewResult { batch, task: task.id, custom_id: task.custom_id, request, body };
        Ok((task.id, self.results.write(new).await.ok_or(CloseError::Result)?))
    }

    async fn write(&self, batch: &BatchRow, tasks: &[TaskRow], errors: &mut Option<Upload>) -> Result<(), CloseError> {
        if tasks.is_empty() {
            return Ok(());
        }
        if errors.is_none() {
            let begun = self.files.begin_output(batch.account, file_of(batch.id, ERRORS)).await;
            *errors = Some(begun.map_err(CloseError::File)?);
        }
        let mut lines = BytesMut::new();
        for task in tasks {
            lines.extend_from_slice(&error_line(batch, task));
        }
        if let Some(errors) = errors {
            errors.write(lines.freeze()).await.map_err(CloseError::File)?;
        }
        Ok(())
    }
}

/// The line of a task that has no result.
pub(crate) fn error_line(batch: &BatchRow, task: &TaskRow) -> Bytes {
    let (response, error) = match (&task.error, batch.ending) {
        (Some(error), _) => of_error(task, error),
        (None, Some(ending)) => {
            let (code, message) = ending.explanation();
            (None, Some(PlainError { code, message }))
        }
        // A task without result or error in a batch that was not stopped cannot be.
        (None, None) => (None, Some(PlainError { code: Code::Internal.name(), message: "The request was lost." })),
    };
    let line =
        ErrorLine { id: format!("batch_req_{}", task.id.uuid().simple()), custom_id: &task.custom_id, response, error };
    // Texts and numbers always serialise.
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// An answer that was an error is given as that answer; what never came to an answer, as what went wrong.
fn of_error<'a>(task: &TaskRow, error: &'a TaskError) -> (Option<ErrorResponse<'a>>, Option<PlainError<'a>>) {
    let TaskError { code, message, status, kind, param } = error;
    let Some(status_code) = *status else { return (None, Some(PlainError { code, message })) };
    let kind =
        kind.as_deref().unwrap_or(if status_code < 500 { Code::InvalidRequest.kind() } else { Code::Internal.kind() });
    let error = FullError { message, r#type: kind, param: param.as_deref(), code };
    let body = ErrorBody { error };
    (Some(ErrorResponse { status_code, request_id: task.id.to_string(), body }), None)
}

fn file_of(batch: BatchId, which: u128) -> FileId {
    FileId::new(Uuid::from_u128(batch.uuid().as_u128() ^ which))
}
