//! Holds: taking a model server out.

use axum::{Json, extract::State};
use tracing::info;

use super::UpstreamObject;
use crate::{app::App, auth::AdminCaller, error::ApiError, path::PathText};

/// Send a model server no new calls
///
/// Neither people's nor those of batches, and no new films; what is under way there goes on. This node obeys at once, the
/// others within two seconds, and a restart changes nothing. It can be stopped once `idle` is true.
#[utoipa::path(post, path = "/v1/admin/upstreams/{name}/drain", tag = "Administration",
    params(("name" = String, Path)), responses(
    (status = 200, description = "The model server, drained", body = UpstreamObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError),
    (status = 404, description = "The configuration has no model server of this name", body = ApiError)))]
pub(crate) async fn drain(
    State(app): State<App>,
    caller: AdminCaller,
    name: PathText,
) -> Result<Json<UpstreamObject>, ApiError> {
    let drained = app.gateway.drain(name.as_str(), Some(caller.account)).await?;
    info!(upstream = name.as_str(), user.id = %caller.account, "upstream {} was drained by an admin", name.as_str());
    Ok(Json(drained.into()))
}
