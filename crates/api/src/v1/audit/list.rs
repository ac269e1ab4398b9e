//! Holds: an account's records.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::AuditRecord;
use crate::{app::App, auth::AccountCaller, error::ApiError, page::cut, query::Parameters};

/// Records of one answer when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most records of one answer.
const MAX_LIMIT: u32 = 500;

/// A page of records.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditRecords {
    data: Vec<AuditRecord>,
    /// Ask again with `after` set to this for those that follow; null on the last page.
    #[schema(required = true)]
    next_after: Option<String>,
}

/// The account's records, newest first
///
/// Without their places in the log, which `GET /v1/audit/{id}` has.
#[utoipa::path(get, path = "/v1/audit", tag = "Audit", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("after" = Option<String>, Query, format = Uuid, description = "The id of the last record seen")), responses(
    (status = 200, description = "The records", body = AuditRecords),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<AuditRecords>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "after"])?;
    let limit = parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let mut rows = app.audit.records(caller.account, limit + 1, parameters.id("after")?).await?;
    let has_more = cut(&mut rows, limit);
    let next_after = rows.last().filter(|_| has_more).map(|row| row.audit_id.clone());
    Ok(Json(AuditRecords { data: rows.into_iter().map(AuditRecord::from).collect(), next_after }))
}
