//! Holds: a film itself, in OpenAI's shape.

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use http::HeaderMap;

use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    films::{self, named},
    path::PathText,
    query::{Parameters, invalid},
};

/// A film itself
///
/// There is none until its job has completed. A download that broke off goes on with `Range`.
#[utoipa::path(get, path = "/openai/v1/videos/{id}/content", tag = "Inference", params(
    ("id" = String, Path),
    ("variant" = Option<String>, Query, description = "`video`, which is all that there is"),
    ("Range" = Option<String>, Header, description = "One range of bytes")), responses(
    (status = 200, description = "All of it", content(
        (Vec<u8> = "video/mp4"), (Vec<u8> = "video/webm"), (Vec<u8> = "video/x-msvideo"), (Vec<u8> = "image/webp"),
        (Vec<u8> = "image/gif"))),
    (status = 206, description = "The range", content(
        (Vec<u8> = "video/mp4"), (Vec<u8> = "video/webm"), (Vec<u8> = "video/x-msvideo"), (Vec<u8> = "image/webp"),
        (Vec<u8> = "image/gif"))),
    (status = 400, description = "There is no such variant", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such film in this account, or not yet", body = ApiError),
    (status = 416, description = "The range lies beyond the film", body = ApiError)))]
pub(crate) async fn content(
    State(app): State<App>,
    caller: AccountCaller,
    id: PathText,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["variant"])?;
    if !matches!(parameters.text("variant"), None | Some("video")) {
        return Err(invalid("variant", "must be `video`: no pictures are made of films here"));
    }
    let row = named(&app, &caller, &id).await?;
    films::content(&app, &row, &headers).await
}
