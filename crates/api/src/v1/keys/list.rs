//! Holds: an account's keys.

use axum::{Json, extract::State};

use super::KeyObject;
use crate::{app::App, auth::AccountCaller, error::ApiError};

/// The account's keys, newest first
#[utoipa::path(get, path = "/v1/keys", tag = "Keys", responses(
    (status = 200, description = "The keys, without their secrets", body = Vec<KeyObject>),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, caller: AccountCaller) -> Result<Json<Vec<KeyObject>>, ApiError> {
    let keys = app.accounts.keys(caller.account, app.now()).await?;
    Ok(Json(keys.into_iter().map(KeyObject::from).collect()))
}
