//! Holds: logout.

use axum::extract::State;
use batchin_store::Accounts;
use http::{HeaderMap, StatusCode};

use crate::{
    auth::{AccountCaller, session_hash},
    error::ApiError,
};

/// End the session that is sent
#[utoipa::path(post, path = "/v1/users/logout", tag = "Users", responses(
    (status = 204, description = "The session has ended"),
    (status = 400, description = "A key was sent, which is no session", body = ApiError),
    (status = 401, description = "The session is missing or has ended", body = ApiError)))]
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    _: AccountCaller,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let wrong = "Only a session can be logged out; to end a key, DELETE /v1/keys/{id}.";
    let session = session_hash(&headers).ok_or_else(|| ApiError::invalid("Authorization", wrong))?;
    accounts.end_session(session).await?;
    Ok(StatusCode::NO_CONTENT)
}
