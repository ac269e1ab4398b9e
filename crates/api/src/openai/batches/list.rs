//! Holds: an account's batches, page by page.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::BatchRows;
use serde::Serialize;
use utoipa::ToSchema;

use super::BatchObject;
use crate::{
    auth::AccountCaller,
    error::ApiError,
    page::cut,
    path::batch_id,
    query::{Parameters, invalid},
};

/// Batches of one answer when the client does not say, as at OpenAI.
const DEFAULT_LIMIT: u32 = 20;
/// Most batches of one answer, as at OpenAI.
const MAX_LIMIT: u32 = 100;

/// A page of batches.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<BatchObject>,
    #[schema(required = true)]
    first_id: Option<String>,
    /// Ask again with `after` set to this for the batches that follow.
    #[schema(required = true)]
    last_id: Option<String>,
    has_more: bool,
}

/// The account's batches, newest first
#[utoipa::path(get, path = "/openai/v1/batches", tag = "Batches", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "20 without it"),
    ("after" = Option<String>, Query, description = "The id of the last batch seen")), responses(
    (status = 200, description = "The batches", body = BatchList),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(batch_rows): State<BatchRows>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<BatchList>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "after"])?;
    let asked = parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let after = parameters.text("after").map(|id| batch_id(id).ok_or_else(|| invalid("after", "must be a batch's id")));
    let mut rows = batch_rows.batches_after(caller.account, after.transpose()?, asked.saturating_add(1)).await?;
    let has_more = cut(&mut rows, asked);
    let data: Vec<BatchObject> = rows.into_iter().map(BatchObject::from).collect();
    let (first_id, last_id) = (data.first().map(|batch| batch.id.clone()), data.last().map(|batch| batch.id.clone()));
    Ok(Json(BatchList { object: "list", data, first_id, last_id, has_more }))
}
