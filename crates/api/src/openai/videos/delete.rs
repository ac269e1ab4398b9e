//! Holds: removing a film, in OpenAI's shape.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, auth::AccountCaller, error::ApiError, films::given_up, path::PathText};

/// A film that is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedVideo {
    #[schema(example = "video_0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "video.deleted")]
    object: &'static str,
    deleted: bool,
}

/// Remove a film
///
/// A job that is not over is stopped, for nothing. Either way it is gone at once.
#[utoipa::path(delete, path = "/openai/v1/videos/{id}", tag = "Inference", params(("id" = String, Path)), responses(
    (status = 200, description = "It is gone", body = DeletedVideo),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account", body = ApiError)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<DeletedVideo>, ApiError> {
    let before = given_up(&app, &caller, &id).await?;
    if !before.status.is_over() {
        // What was stopped is over now; gone is gone, whoever was first.
        app.films.give_up(caller.account, before.id).await?;
    }
    Ok(Json(DeletedVideo { id: before.id.to_string(), object: "video.deleted", deleted: true }))
}
