//! Holds: a picture itself, for whoever has its address.

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use batchin_domain::FileId;
use batchin_openai::{Code, PictureFormat};
use http::HeaderMap;

use crate::{app::App, download::Download, error::ApiError, path::PathText, query::Parameters};

/// A picture
///
/// The address stands in the answer of the call that made it, and works without a key for as long as the picture is kept:
/// a day, or as long as the results of its batch. It also stands among the account's files, where it can be deleted.
#[utoipa::path(get, path = "/v1/images/{id}/content", tag = "Inference", security(()), params(
    ("id" = String, Path),
    ("expires" = i64, Query, description = "As it stands in the address"),
    ("signature" = String, Query, description = "As it stands in the address"),
    ("Range" = Option<String>, Header, description = "One range of bytes")), responses(
    (status = 200, description = "All of it", content_type = "image/png", body = Vec<u8>),
    (status = 206, description = "The range", content_type = "image/png", body = Vec<u8>),
    (status = 404, description = "The address is not whole, or has expired, or its picture was deleted", body = ApiError),
    (status = 416, description = "The range lies beyond the picture", body = ApiError)))]
pub(crate) async fn content(
    State(app): State<App>,
    id: PathText,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let none = || {
        let message =
            "There is no picture at this address: it is not whole, or has expired, or the picture was deleted.";
        ApiError::new(Code::NotFound, message)
    };
    let id: FileId = id.as_str().parse().map_err(|_| none())?;
    let query = Parameters::parse(query.as_deref(), &["expires", "signature"]).map_err(|_| none())?;
    let until = query.text("expires").and_then(|until| until.parse().ok()).ok_or_else(none)?;
    let signature = query.text("signature").ok_or_else(none)?;
    if !app.gateway.shelf().links.holds(id, until, signature, app.gateway.clock().now()) {
        return Err(none());
    }
    let file = app.files.show_to_anybody(id).await?.ok_or_else(none)?;
    let ending = file.filename.rsplit('.').next().unwrap_or_default();
    let format = PictureFormat::from_name(ending).unwrap_or(PictureFormat::Png);
    let (id, content_type) = (file.id.to_string(), format.content_type());
    let download = Download { id, bytes: file.bytes, content_type, filename: &file.filename };
    download.answer(&headers, |range| app.files.content(&file, range))
}
