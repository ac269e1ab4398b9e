//! Holds: what both flavours of films have in common: what is asked for, finding a job, and its film as a download.

use axum::response::Response;
use batchin_batch::{FilmShape, FilmWish};
use batchin_domain::{AspectRatio, Frame, VideoId, film::MAX_FILM_SECONDS};
use batchin_openai::Code;
use batchin_store::FilmRow;
use http::HeaderMap;

use crate::{app::App, auth::AccountCaller, download::Download, error::ApiError, path::PathText};

/// Largest body that asks for a film, in bytes: a prompt of 32,000 characters, each escaped.
pub(crate) const MAX_BODY_BYTES: usize = 512 * 1024;

/// What a request says, before anything of it is believed.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<String>,
    /// The member of that name, and its value.
    pub(crate) seconds: Option<u32>,
    pub(crate) aspect_ratio: Option<String>,
    pub(crate) size: Option<String>,
}

impl Asked {
    /// What somebody wants to have made.
    pub(crate) fn wish(self) -> Result<FilmWish, ApiError> {
        let missing = |name: &'static str| ApiError::invalid(name, format!("`{name}` is missing."));
        let shape = match (self.aspect_ratio, self.size) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("size", "`size` cannot be given together with `aspect_ratio`."));
            }
            (Some(ratio), None) => FilmShape::Ratio(AspectRatio::from_name(&ratio).ok_or_else(|| {
                let names = AspectRatio::ALL.map(AspectRatio::name).join(", ");
                ApiError::invalid("aspect_ratio", format!("`aspect_ratio` must be one of {names}."))
            })?),
            (None, Some(size)) => FilmShape::Frame(Frame::parse(&size).ok_or_else(|| {
                ApiError::invalid("size", "`size` must be a width and a height in pixels, such as 848x480.")
            })?),
            (None, None) => FilmShape::Usual,
        };
        Ok(FilmWish {
            model: self.model.ok_or_else(|| missing("model"))?,
            prompt: self.prompt.ok_or_else(|| missing("prompt"))?,
            seconds: self.seconds,
            shape,
        })
    }
}

/// A number of seconds that is written as a text.
pub(crate) fn seconds(name: &'static str, text: &str) -> Result<u32, ApiError> {
    let is_plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let number =
        is_plain.then(|| text.parse().ok()).flatten().filter(|seconds| (1..=MAX_FILM_SECONDS).contains(seconds));
    number.ok_or_else(|| {
        ApiError::invalid(name, format!("`{name}` must be a whole number of seconds from 1 to {MAX_FILM_SECONDS}."))
    })
}

/// The caller's job with the id in the path.
pub(crate) async fn named(app: &App, caller: &AccountCaller, id: &PathText) -> Result<FilmRow, ApiError> {
    let id: VideoId = id.id("video")?;
    app.films.show(caller.account, id).await?.ok_or_else(|| ApiError::not_found("video"))
}

/// Stops the caller's job with the id in the path, or removes its film; the job as it stood before.
pub(crate) async fn given_up(app: &App, caller: &AccountCaller, id: &PathText) -> Result<FilmRow, ApiError> {
    let id: VideoId = id.id("video")?;
    app.films.give_up(caller.account, id).await?.ok_or_else(|| ApiError::not_found("video"))
}

/// A film, once it is there.
pub(crate) async fn content(app: &App, row: &FilmRow, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Some(film) = &row.film else {
        let message = format!("There is no film yet: its job is {}.", row.status.name());
        return Err(ApiError::new(Code::NotFound, message));
    };
    let file = app.films.file(film).await;
    let (id, filename) = (row.id.to_string(), format!("{}.{}", row.id, file.name()));
    let download = Download { id, bytes: film.bytes, content_type: file.content_type(), filename: &filename };
    download.answer(headers, |range| app.films.content(film, range))
}
