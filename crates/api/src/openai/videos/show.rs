//! Holds: how a film goes, in OpenAI's shape.

use axum::{extract::State, response::Response};

use super::{OpenAiVideo, polled};
use crate::{app::App, auth::AccountCaller, error::ApiError, films::named, path::PathText};

/// How a film goes
#[utoipa::path(get, path = "/openai/v1/videos/{id}", tag = "Inference", params(("id" = String, Path)), responses(
    (status = 200, description = "The job", body = OpenAiVideo),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, caller: AccountCaller, id: PathText) -> Result<Response, ApiError> {
    Ok(polled(named(&app, &caller, &id).await?.into()))
}
