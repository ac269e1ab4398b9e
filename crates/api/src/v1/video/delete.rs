//! Holds: stopping a film, or removing it.

use axum::{Json, extract::State};
use batchin_domain::FilmStatus;

use super::VideoObject;
use crate::{app::App, auth::AccountCaller, error::ApiError, films::given_up, path::PathText};

/// Cancel a film, or remove it
///
/// A job that is not over is cancelled, for nothing, and can still be looked at. Of one that is, the film goes at once and
/// the job with it. The answer shows the job as it stands then, or stood last.
#[utoipa::path(delete, path = "/v1/video/{id}", tag = "Inference", params(("id" = String, Path)), responses(
    (status = 200, description = "The job", body = VideoObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account", body = ApiError)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<VideoObject>, ApiError> {
    let mut row = given_up(&app, &caller, &id).await?;
    if !row.status.is_over() {
        row.status = FilmStatus::Cancelled;
        row.blocked = None;
    }
    Ok(Json(VideoObject::of(&app, row)))
}
