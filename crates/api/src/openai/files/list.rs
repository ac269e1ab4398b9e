//! Holds: an account's files, page by page.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_domain::FilePurpose;
use batchin_files::Files;
use batchin_store::{FileOrder, FilePage};
use serde::Serialize;
use utoipa::ToSchema;

use super::FileObject;
use crate::{
    auth::AccountCaller,
    error::ApiError,
    page::cut,
    query::{Parameters, invalid},
};

/// Most files of one answer, and as many as come when the client does not say.
const MAX_LIMIT: u32 = 10_000;

/// A page of files.
#[derive(Serialize, ToSchema)]
pub(crate) struct FileList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<FileObject>,
    #[schema(required = true)]
    first_id: Option<String>,
    /// Ask again with `after` set to this for the files that follow.
    #[schema(required = true)]
    last_id: Option<String>,
    has_more: bool,
}

/// The account's files
#[utoipa::path(get, path = "/openai/v1/files", tag = "Files", params(
    ("purpose" = Option<String>, Query, description = "Only these"),
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "10000 without it"),
    ("order" = Option<String>, Query, description = "`desc`, the newest first, or `asc`; `desc` without it"),
    ("after" = Option<String>, Query, description = "The id of the last file seen")), responses(
    (status = 200, description = "The files", body = FileList),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(files): State<Files>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<FileList>, ApiError> {
    let asked = page(&Parameters::parse(query.as_deref(), &["purpose", "limit", "order", "after"])?)?;
    let one_more = FilePage { limit: asked.limit.saturating_add(1), ..asked };
    let mut rows = files.list(caller.account, one_more).await?;
    let has_more = cut(&mut rows, asked.limit);
    let data: Vec<FileObject> = rows.into_iter().map(FileObject::from).collect();
    let (first_id, last_id) = (data.first().map(|file| file.id.clone()), data.last().map(|file| file.id.clone()));
    Ok(Json(FileList { object: "list", data, first_id, last_id, has_more }))
}

fn page(parameters: &Parameters<'_>) -> Result<FilePage, ApiError> {
    let purpose = parameters.text("purpose").map(|name| {
        let names = || FilePurpose::ALL.map(FilePurpose::name).join(", ");
        FilePurpose::from_name(name).ok_or_else(|| invalid("purpose", &format!("must be one of {}", names())))
    });
    let after = parameters.text("after").map(|id| id.parse().map_err(|_| invalid("after", "must be the id of a file")));
    Ok(FilePage {
        purpose: purpose.transpose()?,
        after: after.transpose()?,
        order: match parameters.text("order") {
            None | Some("desc") => FileOrder::Newest,
            Some("asc") => FileOrder::Oldest,
            Some(_) => return Err(invalid("order", "must be `asc` or `desc`")),
        },
        limit: parameters.count("limit", 1..=MAX_LIMIT, MAX_LIMIT)?,
    })
}
