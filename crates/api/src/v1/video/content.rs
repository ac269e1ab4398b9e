//! Holds: a film itself.

use axum::{extract::State, response::Response};
use http::HeaderMap;

use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    films::{self, named},
    path::PathText,
};

/// A film itself
///
/// There is none until its job has completed. A download that broke off goes on with `Range`.
#[utoipa::path(get, path = "/v1/video/{id}/content", tag = "Inference", params(
    ("id" = String, Path),
    ("Range" = Option<String>, Header, description = "One range of bytes")), responses(
    (status = 200, description = "All of it", content(
        (Vec<u8> = "video/mp4"), (Vec<u8> = "video/webm"), (Vec<u8> = "video/x-msvideo"), (Vec<u8> = "image/webp"),
        (Vec<u8> = "image/gif"))),
    (status = 206, description = "The range", content(
        (Vec<u8> = "video/mp4"), (Vec<u8> = "video/webm"), (Vec<u8> = "video/x-msvideo"), (Vec<u8> = "image/webp"),
        (Vec<u8> = "image/gif"))),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account, or not yet", body = ApiError),
    (status = 416, description = "The range lies beyond the film", body = ApiError)))]
pub(crate) async fn content(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = named(&app, &caller, &id).await?;
    films::content(&app, &row, &headers).await
}
