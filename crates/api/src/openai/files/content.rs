//! Holds: a file's content as a download that can be taken up again.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use batchin_files::Files;
use futures::TryStreamExt;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use tracing::warn;

use super::{
    disposition::attachment,
    part::{Part, asked},
    show::named,
};
use crate::{auth::AccountCaller, error::ApiError, path::PathText};

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
    // A file never changes, so its id names its content.
    let etag = format!("\"{}\"", file.id);
    let (status, range) = match asked(&headers, &etag, file.bytes) {
        Part::Whole => (StatusCode::OK, 0..file.bytes),
        Part::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Outside => return Err(ApiError::outside(file.bytes)),
    };
    let pieces = files.content(&file, range.clone()).inspect_err(|cause| {
        // The client sees a connection that ends early.
        warn!(error = cause as &dyn std::error::Error, "a file could not be read to its end");
    });
    let mut response = (status, Body::from_stream(pieces)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(CONTENT_DISPOSITION, attachment(&file.filename));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(part) = HeaderValue::try_from(format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes))
    {
        headers.insert(CONTENT_RANGE, part);
    }
    Ok(response)
}
