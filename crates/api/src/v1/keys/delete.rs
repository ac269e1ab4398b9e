//! Holds: the end of a key.

use axum::extract::State;
use http::StatusCode;

use crate::{app::App, auth::ManagingCaller, error::ApiError, path::PathText};

/// Delete a key
///
/// It stops working everywhere within a second.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "Keys", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "The key is gone"),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 404, description = "No such key in this account", body = ApiError)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: ManagingCaller,
    id: PathText,
) -> Result<StatusCode, ApiError> {
    app.accounts.delete_key(caller.account, id.id("key")?, app.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
