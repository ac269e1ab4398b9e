//! Holds: uploading a file.

use axum::{
    extract::{Request, State},
    response::Response,
};
use utoipa::ToSchema;

use super::{
    FileObject,
    form::{self, Form},
};
use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    idempotent::{Creation, Keep, key, once},
};

/// A file and what it is for, in any order; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct UploadFile;

/// Upload a file
///
/// The body is stored as it comes, so that a file may be larger than memory.
#[utoipa::path(post, path = "/openai/v1/files", tag = "Files",
    request_body(content = UploadFile, content_type = "multipart/form-data"),
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same file: the first answer again")),
    responses(
    (status = 200, description = "The file", body = FileObject),
    (status = 400, description = "A field is at fault", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 402, description = "An account without credit keeps no more files", body = ApiError),
    (status = 408, description = "The body came too slowly", body = ApiError),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ApiError),
    (status = 413, description = "The file is over `files.max_bytes`, or the account keeps no more", body = ApiError),
    (status = 429, description = "The account has as many uploads under way as it may", body = ApiError),
    (status = 503, description = "Too many uploads at once", body = ApiError),
    (status = 507, description = "The server's disk is nearly full", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // A key that is none is refused before a gigabyte has been sent.
    key(&parts.headers)?;
    let form = form::receive(&app, caller.account, &parts.headers, body).await?;
    // The file has been stored by now and nobody sees it. Where the key was used before it is thrown away again. What
    // is compared is what was said, since each try frames it in another boundary.
    let said = form.fingerprint();
    let creation =
        Creation { account: caller.account, route: "/openai/v1/files", body: said.as_bytes(), keep: Keep::Answer };
    once(&app, &parts.headers, creation, |_| finish(form)).await
}

async fn finish(form: Form) -> Result<FileObject, ApiError> {
    Ok(form.upload.finish(form.purpose, form.filename, form.expires_after).await?.into())
}
