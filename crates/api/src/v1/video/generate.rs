//! Holds: having a film made.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_batch::RememberFilm;
use batchin_domain::film::MAX_FILM_SECONDS;
use batchin_gateway::Caller;
use batchin_store::{FilmRow, IdempotencyScope};
use bytes::Bytes;
use utoipa::ToSchema;

use super::VideoObject;
use crate::{
    app::App,
    auth::InferenceCaller,
    body,
    error::ApiError,
    fields::Fields,
    films::{Asked, MAX_BODY_BYTES},
    idempotent::{Creation, Keep, once, remembered},
};

const KNOWN: &[&str] = &["model", "prompt", "duration_seconds", "aspect_ratio"];

/// What is to be made; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct VideoRequest;

/// Have a film made
///
/// The answer comes at once; GET /v1/video/{id} tells how it goes, and `output_url` has the film once the job has
/// completed. It is checked that the most it can cost can be paid now; charged is what is delivered, and nothing for a
/// job that brings no film.
#[utoipa::path(post, path = "/v1/video/generate", tag = "Inference", request_body = VideoRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "The job", body = VideoObject),
    (status = 400, description = "The request is at fault", body = ApiError),
    (status = 401, description = "The key is missing or does not work", body = ApiError),
    (status = 402, description = "The balance or the key's budget does not cover it", body = ApiError),
    (status = 404, description = "No such model", body = ApiError),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ApiError),
    (status = 429, description = "Too many requests, or too many films at once", body = ApiError),
    (status = 507, description = "The server's disk is nearly full", body = ApiError)))]
pub(crate) async fn generate(
    State(app): State<App>,
    caller: InferenceCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let InferenceCaller(caller) = caller;
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let creation = Creation { account: caller.account, route: "/v1/video/generate", body: &body, keep: Keep::Answer };
    let work = |scope| create(app.clone(), caller.clone(), body.clone(), scope);
    once(&app, &parts.headers, creation, work).await
}

async fn create(
    app: App,
    caller: Caller,
    body: Bytes,
    scope: Option<IdempotencyScope>,
) -> Result<VideoObject, ApiError> {
    let fields = Fields::parse(&body, KNOWN)?;
    let asked = Asked {
        model: Some(fields.text("model")?),
        prompt: Some(fields.text("prompt")?),
        seconds: fields.optional_count("duration_seconds", 1..=MAX_FILM_SECONDS)?,
        aspect_ratio: fields.optional_text("aspect_ratio")?,
        size: None,
    };
    let remember = scope.map(|scope| -> RememberFilm {
        let app = app.clone();
        Box::new(move |row: &FilmRow| (scope, remembered(&VideoObject::of(&app, row.clone()))))
    });
    let row = app.films.create(&caller, asked.wish()?, remember).await?;
    Ok(VideoObject::of(&app, row))
}
