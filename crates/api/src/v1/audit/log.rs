//! Holds: the log itself, by the paths of C2SP's tlog-tiles.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use batchin_receipts::Tile;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::{ANY_ORIGIN, show::nothing_there};
use crate::{app::App, error::ApiError, path::PathText};

/// Tiles never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The log's checkpoint
///
/// A signed note: the log's name, its size, its root.
#[utoipa::path(get, path = "/audit/log/checkpoint", tag = "Audit", security(()), responses(
    (status = 200, description = "The checkpoint", content_type = "text/plain", body = String),
    (status = 404, description = "The log is empty", body = ApiError)))]
pub(crate) async fn checkpoint(State(app): State<App>) -> Result<Response, ApiError> {
    let signed = app.audit.checkpoint().await?.ok_or_else(nothing_there)?;
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "public, max-age=1")];
    Ok(([ANY_ORIGIN], headers, signed).into_response())
}

/// A tile of the log
///
/// `LEVEL/N` has hashes, `entries/N` has entries; `.p/WIDTH` behind it, the first ones of a tile that is not full.
#[utoipa::path(get, path = "/audit/log/tile/{tile}", tag = "Audit", security(()),
    params(("tile" = String, Path, description = "Such as `0/x001/234.p/5`; slashes are part of it")), responses(
    (status = 200, description = "The tile", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 404, description = "The log has no such tile", body = ApiError)))]
pub(crate) async fn tile(State(app): State<App>, path: PathText) -> Result<Response, ApiError> {
    let tile: Tile = path.as_str().parse().map_err(|_| nothing_there())?;
    let bytes = app.audit.tile(&tile).await?.ok_or_else(nothing_there)?;
    let headers = [(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, FOR_EVER)];
    Ok(([ANY_ORIGIN], headers, bytes).into_response())
}
