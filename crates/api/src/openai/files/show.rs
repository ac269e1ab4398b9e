//! Holds: one file.

use axum::{Json, extract::State};
use batchin_domain::FileId;
use batchin_files::Files;
use batchin_store::FileRow;

use super::FileObject;
use crate::{auth::AccountCaller, error::ApiError, path::PathText};

/// The file that a path names, if the caller has it.
pub(super) async fn named(files: &Files, caller: &AccountCaller, id: &PathText) -> Result<FileRow, ApiError> {
    let id: FileId = id.id("file")?;
    files.show(caller.account, id).await?.ok_or_else(|| ApiError::not_found("file"))
}

/// A file
#[utoipa::path(get, path = "/openai/v1/files/{id}", tag = "Files", params(("id" = String, Path)), responses(
    (status = 200, description = "The file", body = FileObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError)))]
pub(crate) async fn show(
    State(files): State<Files>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<FileObject>, ApiError> {
    Ok(Json(named(&files, &caller, &id).await?.into()))
}
