//! Holds: the months that there are.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, auth::AccountCaller, cents::Cents, error::ApiError};

/// A month.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatementSummary {
    #[schema(example = "2026-11")]
    month: String,
    opening_balance_cents: Cents,
    /// By now, where it is not closed.
    closing_balance_cents: Cents,
    /// Whether it stays as it is.
    closed: bool,
}

/// Months.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatementList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<StatementSummary>,
}

/// The months that have a statement, newest first
#[utoipa::path(get, path = "/v1/statements", tag = "Money in", responses(
    (status = 200, description = "From the month of the first movement on", body = StatementList),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, caller: AccountCaller) -> Result<Json<StatementList>, ApiError> {
    let months = app.statements.statements(caller.account, app.now()).await?;
    let summary = |month: batchin_store::StatementMonth| StatementSummary {
        month: month.month.to_string(),
        opening_balance_cents: month.opening.into(),
        closing_balance_cents: month.closing.into(),
        closed: month.closed,
    };
    Ok(Json(StatementList { object: "list", data: months.into_iter().map(summary).collect() }))
}
