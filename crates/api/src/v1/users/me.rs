//! Holds: the caller's own user.

use axum::{Json, extract::State};
use batchin_store::Accounts;

use super::UserObject;
use crate::{auth::AccountCaller, error::ApiError};

/// The caller's user
#[utoipa::path(get, path = "/v1/users/me", tag = "Users", responses(
    (status = 200, description = "The user", body = UserObject),
    (status = 401, description = "The key is missing or does not work", body = ApiError)))]
pub(crate) async fn show(
    State(accounts): State<Accounts>,
    caller: AccountCaller,
) -> Result<Json<UserObject>, ApiError> {
    let user = accounts.user(caller.account).await?;
    let user = user.ok_or_else(|| ApiError::unauthorized("This account does not exist any more."))?;
    Ok(Json(user.into()))
}
