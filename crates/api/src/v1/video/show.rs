//! Holds: how a film goes.

use axum::{Json, extract::State};

use super::VideoObject;
use crate::{app::App, auth::AccountCaller, error::ApiError, films::named, path::PathText};

/// How a film goes
#[utoipa::path(get, path = "/v1/video/{id}", tag = "Inference", params(("id" = String, Path)), responses(
    (status = 200, description = "The job", body = VideoObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account", body = ApiError)))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<VideoObject>, ApiError> {
    let row = named(&app, &caller, &id).await?;
    Ok(Json(VideoObject::of(&app, row)))
}
