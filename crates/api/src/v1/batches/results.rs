//! Holds: a batch's results as JSON lines.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use batchin_domain::{AccountId, BatchId};
use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_TYPE;

use super::{
    show::{after, bounded},
    task::with_answers,
};
use crate::{app::App, auth::AccountCaller, error::ApiError, path::PathText, query::Parameters};

/// Tasks read at once; bounds what one slow reader keeps in memory.
const PAGE: u32 = 200;

/// The answer broke off; the client sees a connection that ends early.
#[derive(Debug, thiserror::Error)]
#[error("the results could not be read to their end")]
struct BrokenOff;

/// Results as JSON lines
///
/// One line for every task that has ended, in the order in which they ended, also while the batch runs. `seq` in the
/// last line seen, given as `after`, goes on from there: nothing is left out and nothing comes twice. Every line has
/// `result` and `error`, and one of them is null.
#[utoipa::path(get, path = "/v1/batches/{id}/results", tag = "Batches", params(
    ("id" = Uuid, Path),
    ("after" = Option<u64>, Query, description = "The `seq` of the last task seen")), responses(
    (status = 200, description = "A task on each line", content_type = "application/x-ndjson", body = String),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such batch in this account", body = ApiError)))]
pub(crate) async fn results(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let id = id.batch()?;
    let after = after(&Parameters::parse(query.as_deref(), &["after"])?)?;
    app.batch_rows.batch(caller.account, id).await?.ok_or_else(|| ApiError::not_found("batch"))?;
    let account = caller.account;
    let pages = stream::try_unfold(Some((app, after.unwrap_or(0))), move |at| async move {
        let Some((app, after)) = at else { return Ok(None) };
        // The cause was logged where it became an API error.
        let (lines, next) = page(&app, (account, id), after).await.map_err(|_| BrokenOff)?;
        Ok::<_, BrokenOff>(Some((lines, next.map(|next| (app, next)))))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response())
}

/// Lines of one page, and the `seq` after which the next one begins.
async fn page(app: &App, (account, batch): (AccountId, BatchId), after: u64) -> Result<(Bytes, Option<u64>), ApiError> {
    let rows = app.batch_rows.ended_tasks(batch, after, PAGE + 1).await?;
    // Read after its tasks, as it may be stopped while this goes on.
    let ending = app.batch_rows.batch(account, batch).await?.and_then(|batch| batch.ending);
    let (rows, more) = bounded(rows, PAGE);
    let next = rows.last().filter(|_| more).and_then(|row| row.seq);
    let mut lines = Vec::new();
    for task in with_answers(app, rows, (batch, ending)).await? {
        serde_json::to_writer(&mut lines, &task).map_err(|_| ApiError::internal())?;
        lines.push(b'\n');
    }
    Ok((lines.into(), next))
}
