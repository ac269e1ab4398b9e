//! Holds: taking a model server back.

use axum::{Json, extract::State};
use tracing::info;

use super::UpstreamObject;
use crate::{app::App, auth::AdminCaller, error::ApiError, path::PathText};

/// Send a drained model server calls again
///
/// One that is not drained stays as it is.
#[utoipa::path(post, path = "/v1/admin/upstreams/{name}/resume", tag = "Administration",
    params(("name" = String, Path)), responses(
    (status = 200, description = "The model server", body = UpstreamObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError),
    (status = 404, description = "The configuration has no model server of this name", body = ApiError)))]
pub(crate) async fn resume(
    State(app): State<App>,
    caller: AdminCaller,
    name: PathText,
) -> Result<Json<UpstreamObject>, ApiError> {
    let resumed = app.gateway.resume(name.as_str()).await?;
    info!(upstream = name.as_str(), user.id = %caller.account, "upstream {} was resumed by an admin", name.as_str());
    Ok(Json(resumed.into()))
}
