//! Holds: what operators did about money.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::{AdminAction, WantedActions};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::App,
    auth::AdminCaller,
    cents::Cents,
    error::ApiError,
    page::cut,
    query::{Parameters, invalid},
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// A page of what was done.
#[derive(Serialize, ToSchema)]
pub(crate) struct AdminLogPage {
    data: Vec<AdminLogEntry>,
    /// Ask again with `after` set to this for those that follow; null on the last page.
    #[schema(required = true)]
    next_after: Option<Uuid>,
}

/// Something that an operator did.
#[derive(Serialize, ToSchema)]
pub(crate) struct AdminLogEntry {
    id: Uuid,
    /// An admin's email, or `command line`.
    #[schema(example = "root@example.com")]
    actor: String,
    #[schema(example = "credit.granted")]
    action: String,
    #[schema(required = true)]
    account_id: Option<Uuid>,
    #[schema(required = true)]
    amount_cents: Option<Cents>,
    reason: String,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<AdminAction> for AdminLogEntry {
    fn from(action: AdminAction) -> Self {
        Self {
            id: action.id,
            actor: action.actor,
            action: action.action,
            account_id: action.account.map(batchin_domain::AccountId::uuid),
            amount_cents: action.amount.map(Cents::from),
            reason: action.reason,
            created_at: action.created_at.to_string(),
        }
    }
}

/// What operators did about money, newest first
#[utoipa::path(get, path = "/v1/admin/log", tag = "Administration", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("after" = Option<Uuid>, Query, description = "The id of the last entry seen")), responses(
    (status = 200, description = "The log", body = AdminLogPage),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError)))]
pub(crate) async fn list(
    State(app): State<App>,
    _: AdminCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<AdminLogPage>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "after"])?;
    let limit = parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let wrong = || invalid("after", "must be the id of an entry");
    let after = parameters.text("after").map(|text| Uuid::try_parse(text).map_err(|_| wrong())).transpose()?;
    let mut actions = app.admin_log.actions(WantedActions { limit: limit + 1, after, account: None }).await?;
    let has_more = cut(&mut actions, limit);
    let next_after = actions.last().map(|action| action.id).filter(|_| has_more);
    Ok(Json(AdminLogPage { data: actions.into_iter().map(AdminLogEntry::from).collect(), next_after }))
}
