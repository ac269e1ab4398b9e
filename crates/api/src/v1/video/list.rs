//! Holds: an account's films.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::{FileOrder, FilmPage};

use super::VideoObject;
use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    query::{Parameters, invalid},
};

/// Films of a list when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most films of one answer.
const MAX_LIMIT: u32 = 500;

/// The account's films, newest first
#[utoipa::path(get, path = "/v1/video", tag = "Inference", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("after" = Option<String>, Query, description = "The `id` of the last film seen: those that were begun before it")),
    responses(
    (status = 200, description = "The jobs", body = Vec<VideoObject>),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<VideoObject>>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "after"])?;
    let after = parameters.text("after").map(|id| id.parse().map_err(|_| invalid("after", "must be the id of a film")));
    let page = FilmPage {
        after: after.transpose()?,
        order: FileOrder::Newest,
        limit: parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?,
    };
    let rows = app.films.list(caller.account, page).await?;
    Ok(Json(rows.into_iter().map(|row| VideoObject::of(&app, row)).collect()))
}
