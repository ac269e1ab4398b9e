//! Holds: deleting a file.

use axum::{Json, extract::State};
use batchin_domain::FileId;
use batchin_files::Files;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{auth::AccountCaller, error::ApiError, path::PathText};

/// A file that is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedFile {
    #[schema(example = "file-0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "file")]
    object: &'static str,
    deleted: bool,
}

/// Delete a file
///
/// It is gone at once; a download that is under way may break off.
#[utoipa::path(delete, path = "/openai/v1/files/{id}", tag = "Files", params(("id" = String, Path)), responses(
    (status = 200, description = "It is gone", body = DeletedFile),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError),
    (status = 409, description = "A batch that has not ended reads it", body = ApiError)))]
pub(crate) async fn delete(
    State(files): State<Files>,
    caller: AccountCaller,
    id: PathText,
) -> Result<Json<DeletedFile>, ApiError> {
    let id: FileId = id.id("file")?;
    files.delete(caller.account, id).await?;
    Ok(Json(DeletedFile { id: id.to_string(), object: "file", deleted: true }))
}
