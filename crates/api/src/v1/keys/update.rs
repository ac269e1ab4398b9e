//! Holds: changing a key.

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_domain::KeyId;
use batchin_store::KeyChange;
use utoipa::ToSchema;

use super::{KeyObject, MAX_BODY_BYTES, RPM, name};
use crate::{
    app::App,
    auth::ManagingCaller,
    body,
    error::ApiError,
    fields::{Change, Fields, cents, count, text},
    path::PathText,
};

/// What to change; what is left out stays; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct UpdateKey;

fn parse(body: &[u8], default_rpm: u32) -> Result<KeyChange, ApiError> {
    let fields = Fields::parse(body, &["name", "rate_limit_rpm", "monthly_budget_cents", "is_active"])?;
    Ok(KeyChange {
        name: match fields.change("name", text)? {
            Change::Keep => None,
            Change::Clear => Some(None),
            Change::Set(text) => Some(Some(name(&text)?)),
        },
        rate_limit_rpm: match fields.change("rate_limit_rpm", |field, raw| count(field, raw, RPM))? {
            Change::Keep => None,
            Change::Clear => Some(default_rpm),
            Change::Set(rpm) => Some(rpm),
        },
        monthly_budget: match fields.change("monthly_budget_cents", cents)? {
            Change::Keep => None,
            Change::Clear => Some(None),
            Change::Set(budget) => Some(Some(budget)),
        },
        is_active: fields.optional_flag("is_active")?,
    })
}

/// Change a key
#[utoipa::path(patch, path = "/v1/keys/{id}", tag = "Keys", params(("id" = Uuid, Path)), request_body = UpdateKey,
    responses(
    (status = 200, description = "The key", body = KeyObject),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 404, description = "No such key in this account", body = ApiError)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: ManagingCaller,
    id: PathText,
    request: Request,
) -> Result<Json<KeyObject>, ApiError> {
    let id: KeyId = id.id("key")?;
    let (_, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let change = parse(&body, app.settings.default_rate_limit_rpm)?;
    app.accounts.update_key(caller.account, id, change).await?;
    let keys = app.accounts.keys(caller.account, app.now()).await?;
    let key = keys.into_iter().find(|key| key.id == id);
    Ok(Json(key.ok_or_else(|| ApiError::not_found("key"))?.into()))
}
