//! Holds: one batch with its tasks.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::TaskRow;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    BatchObject,
    task::{TaskObject, with_answers},
};
use crate::{app::App, auth::AccountCaller, error::ApiError, path::PathText, query::Parameters};

/// Most tasks of one answer.
const MAX_TASKS: u32 = 1_000;
/// Most bytes of answers in one; the tasks beyond are on the next page.
const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// A batch with a page of its tasks.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchDetail {
    #[serde(flatten)]
    batch: BatchObject,
    tasks: Vec<TaskObject>,
    /// Ask again with `after` set to this for the tasks that follow; null on the last page.
    #[schema(required = true)]
    next_after: Option<u64>,
}

/// Rows of at most `limit` tasks and of a bounded number of bytes of answers; whether there are more. `rows` may have
/// one beyond the limit, to tell.
pub(super) fn bounded(mut rows: Vec<TaskRow>, limit: u32) -> (Vec<TaskRow>, bool) {
    let asked = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = 0_u64;
    let fits = |row: &&TaskRow| {
        bytes = bytes.saturating_add(row.result.as_ref().map_or(0, |result| result.body.len));
        bytes <= MAX_ANSWER_BYTES
    };
    // One answer always fits: a page without any would lead nowhere.
    let fitting = rows.iter().take(asked).take_while(fits).count().max(1);
    let more = rows.len() > fitting;
    rows.truncate(fitting);
    (rows, more)
}

/// `after`: the index of the last task seen.
pub(super) fn after(parameters: &Parameters<'_>) -> Result<Option<u64>, ApiError> {
    const LAST: u64 = u32::MAX as u64;
    if parameters.text("after").is_none() {
        return Ok(None);
    }
    parameters.count("after", 0..=LAST, 0).map(Some)
}

/// A batch with its tasks
///
/// A task shows its answer or its error, its usage and its cost.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "Batches", params(
    ("id" = Uuid, Path),
    ("limit" = Option<u32>, Query, minimum = 0, maximum = 1000, description = "Tasks of one answer; 1000 without it"),
    ("after" = Option<u64>, Query, description = "The index of the last task seen")), responses(
    (status = 200, description = "The batch", body = BatchDetail),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such batch in this account", body = ApiError)))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
    RawQuery(query): RawQuery,
) -> Result<Json<BatchDetail>, ApiError> {
    let id = id.batch()?;
    let parameters = Parameters::parse(query.as_deref(), &["limit", "after"])?;
    let limit = parameters.count("limit", 0..=MAX_TASKS, MAX_TASKS)?;
    let after = after(&parameters)?;
    let batch = app.batch_rows.batch(caller.account, id).await?.ok_or_else(|| ApiError::not_found("batch"))?;
    // Somebody who only wants the counts asks for no tasks.
    let (rows, more) = if limit == 0 {
        (Vec::new(), false)
    } else {
        let from = after.map_or(0, |after| after.saturating_add(1));
        bounded(app.batch_rows.tasks(id, from, limit.saturating_add(1)).await?, limit)
    };
    let next_after = rows.last().filter(|_| more).map(|row| row.index);
    let tasks = with_answers(&app, rows, (id, batch.ending)).await?;
    Ok(Json(BatchDetail { batch: batch.into(), tasks, next_after }))
}
