//! Holds: sums per model.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::Usage;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Sums, filter};
use crate::{auth::AccountCaller, error::ApiError, query::Parameters};

/// A model's sums.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelSums {
    model: String,
    #[serde(flatten)]
    sums: Sums,
}

/// Sums per model, the costliest first
#[utoipa::path(get, path = "/v1/usage/by-model", tag = "Usage", params(
    ("from" = Option<String>, Query, format = DateTime, description = "Not before"),
    ("to" = Option<String>, Query, format = DateTime, description = "Before"),
    ("key_id" = Option<Uuid>, Query), ("model" = Option<String>, Query)), responses(
    (status = 200, description = "The sums", body = Vec<ModelSums>),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn by_model(
    State(usage): State<Usage>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<ModelSums>>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["from", "to", "key_id", "model"])?;
    let rows = usage.usage_by_model(&filter(caller.account, &parameters)?).await?;
    Ok(Json(rows.into_iter().map(|row| ModelSums { model: row.model, sums: row.totals.into() }).collect()))
}
