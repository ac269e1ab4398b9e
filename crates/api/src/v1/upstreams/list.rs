//! Holds: the list of model servers.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::UpstreamObject;
use crate::{app::App, auth::AdminCaller, error::ApiError};

/// The model servers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Upstreams {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<UpstreamObject>,
}

/// The model servers, by name
#[utoipa::path(get, path = "/v1/admin/upstreams", tag = "Administration", responses(
    (status = 200, description = "The model servers", body = Upstreams),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, _: AdminCaller) -> Result<Json<Upstreams>, ApiError> {
    let data = app.gateway.upstreams().await?.into_iter().map(UpstreamObject::from).collect();
    Ok(Json(Upstreams { object: "list", data }))
}
