//! Holds: an account's films, page by page, in OpenAI's shape.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::{FileOrder, FilmPage};
use serde::Serialize;
use utoipa::ToSchema;

use super::OpenAiVideo;
use crate::{
    app::App,
    auth::AccountCaller,
    error::ApiError,
    page::cut,
    query::{Parameters, invalid},
};

/// Films of a page when the client does not say.
const DEFAULT_LIMIT: u32 = 20;
/// Most films of one page.
const MAX_LIMIT: u32 = 100;

/// A page of films.
#[derive(Serialize, ToSchema)]
pub(crate) struct VideoList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<OpenAiVideo>,
    #[schema(required = true)]
    first_id: Option<String>,
    /// Ask again with `after` set to this for the films that follow.
    #[schema(required = true)]
    last_id: Option<String>,
    has_more: bool,
}

/// The account's films
#[utoipa::path(get, path = "/openai/v1/videos", tag = "Inference", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "20 without it"),
    ("order" = Option<String>, Query, description = "`desc`, the newest first, or `asc`; `desc` without it"),
    ("after" = Option<String>, Query, description = "The id of the last film seen")), responses(
    (status = 200, description = "The films", body = VideoList),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<VideoList>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["limit", "order", "after"])?;
    let limit = parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let after = parameters.text("after").map(|id| id.parse().map_err(|_| invalid("after", "must be the id of a film")));
    let order = match parameters.text("order") {
        None | Some("desc") => FileOrder::Newest,
        Some("asc") => FileOrder::Oldest,
        Some(_) => return Err(invalid("order", "must be `asc` or `desc`")),
    };
    let page = FilmPage { after: after.transpose()?, order, limit: limit.saturating_add(1) };
    let mut rows = app.films.list(caller.account, page).await?;
    let has_more = cut(&mut rows, limit);
    let data: Vec<OpenAiVideo> = rows.into_iter().map(OpenAiVideo::from).collect();
    let (first_id, last_id) = (data.first().map(|film| film.id.clone()), data.last().map(|film| film.id.clone()));
    Ok(Json(VideoList { object: "list", data, first_id, last_id, has_more }))
}
