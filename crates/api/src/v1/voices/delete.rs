//! Holds: the end of a voice.

use axum::extract::State;
use batchin_openai::Code;
use http::StatusCode;

use crate::{app::App, auth::AccountCaller, error::ApiError, path::PathText};

/// Delete a voice, its recording with it
#[utoipa::path(delete, path = "/v1/audio/voices/{name}", tag = "Voices", params(("name" = String, Path)), responses(
    (status = 204, description = "The voice is gone"),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such voice in this account", body = ApiError)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: AccountCaller,
    name: PathText,
) -> Result<StatusCode, ApiError> {
    match app.voices.forget_voice(caller.account, name.as_str()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::new(Code::NotFound, "This account has no voice of that name.")),
    }
}
