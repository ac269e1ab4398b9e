//! Holds: a file's content as a download that can be taken up again.

use axum::{extract::State, response::Response};
use batchin_files::Files;
use http::HeaderMap;

use super::show::named;
use crate::{auth::AccountCaller, download::Download, error::ApiError, path::PathText};

/// A file's content
///
/// Byte for byte. A download that broke off goes on with `Range`.
#[utoipa::path(get, path = "/openai/v1/files/{id}/content", tag = "Files", params(
    ("id" = String, Path),
    ("Range" = Option<String>, Header, description = "One range of bytes")), responses(
    (status = 200, description = "All of it", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 206, description = "The range", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError),
    (status = 416, description = "The range lies beyond the file", body = ApiError)))]
pub(crate) async fn content(
    State(files): State<Files>,
    caller: AccountCaller,
    id: PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = named(&files, &caller, &id).await?;
    let (id, content_type) = (file.id.to_string(), "application/octet-stream");
    let download = Download { id, bytes: file.bytes, content_type, filename: &file.filename };
    download.answer(&headers, |range| files.content(&file, range))
}
