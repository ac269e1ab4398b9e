//! Holds: having a film made, in OpenAI's shape.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_batch::{FilmWish, RememberFilm};
use batchin_gateway::Caller;
use batchin_store::{FilmRow, IdempotencyScope};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    OpenAiVideo, POLL_AFTER,
    form::{self, KNOWN, no_reference},
};
use crate::{
    app::App,
    auth::InferenceCaller,
    body,
    error::ApiError,
    fields::Fields,
    films::{Asked, MAX_BODY_BYTES, seconds},
    idempotent::{Creation, Keep, once, remembered},
    multipart::boundary,
};

/// What is to be made; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateVideo;

/// Have a film made
///
/// As JSON or as a form. The same as POST /v1/video/generate, in OpenAI's shape; `model` is needed, and no film is made
/// of a picture.
#[utoipa::path(post, path = "/openai/v1/videos", tag = "Inference", request_body = CreateVideo,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same request: the first answer again")),
    responses(
    (status = 200, description = "The job", body = OpenAiVideo),
    (status = 400, description = "The request is at fault", body = ApiError),
    (status = 401, description = "The key is missing or does not work", body = ApiError),
    (status = 402, description = "The balance or the key's budget does not cover it", body = ApiError),
    (status = 404, description = "No such model", body = ApiError),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ApiError),
    (status = 429, description = "Too many requests, or too many films at once", body = ApiError),
    (status = 507, description = "The server's disk is nearly full", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: InferenceCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let InferenceCaller(caller) = caller;
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let wish = asked(&parts.headers, body).await?.wish()?;
    // Two forms of one request have different boundaries.
    let same = json!([wish.model, wish.prompt, wish.seconds, format!("{:?}", wish.shape)]).to_string();
    let creation = Creation { account: caller.account, route: "/v1/videos", body: same.as_bytes(), keep: Keep::Answer };
    let work = |scope| begin(app.clone(), caller.clone(), wish.clone(), scope);
    let mut response = once(&app, &parts.headers, creation, work).await?;
    let (name, value) = POLL_AFTER;
    response.headers_mut().insert(name, value);
    Ok(response)
}

async fn begin(
    app: App,
    caller: Caller,
    wish: FilmWish,
    scope: Option<IdempotencyScope>,
) -> Result<OpenAiVideo, ApiError> {
    let remember = scope.map(|scope| -> RememberFilm {
        Box::new(move |row: &FilmRow| (scope, remembered(&OpenAiVideo::from(row.clone()))))
    });
    Ok(app.films.create(&caller, wish, remember).await?.into())
}

async fn asked(headers: &HeaderMap, body: Bytes) -> Result<Asked, ApiError> {
    match boundary(headers) {
        Some(boundary) => form::read(body, boundary).await,
        None => of_json(&body),
    }
}

fn of_json(body: &[u8]) -> Result<Asked, ApiError> {
    let known: Vec<&str> = KNOWN.iter().copied().chain(["input_reference"]).collect();
    let fields = Fields::parse(body, &known)?;
    if fields.value("input_reference").is_some() {
        return Err(no_reference());
    }
    // OpenAI's is a text, and others' a number.
    let length = fields.value("seconds").map(|raw| seconds("seconds", raw.trim_matches('"'))).transpose()?;
    Ok(Asked {
        model: Some(fields.text("model")?),
        prompt: Some(fields.text("prompt")?),
        seconds: length,
        aspect_ratio: None,
        size: fields.optional_text("size")?,
    })
}
