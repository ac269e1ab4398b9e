//! Holds: what every inference call does: read the body, ask the gateway, render its answer.

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use batchin_domain::{CallKind, Class, RequestId};
use batchin_gateway::{IdempotencyKey, Inbound, Promise, RateInfo, Reply, ReplyBody};
use batchin_openai::with_meta;
use batchin_store::StoredAnswer;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use tokio::time::Instant;
use utoipa::IntoResponses;

use crate::{
    app::App,
    auth::InferenceCaller,
    body,
    error::{ApiError, rate_headers},
    idempotent, multipart,
    readers::EventBody,
    received::{Received, receive},
    told,
};

/// Headers of an answer, room for which is made at once.
const ANSWER_HEADERS: usize = 8;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MODEL_SERVED: HeaderName = HeaderName::from_static("x-batchin-model-served");
const OPENAI_PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// How an inference call can be refused, for the description of the API.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what ApiError makes")]
pub(crate) enum Refusals {
    /// The request is at fault
    #[response(status = 400)]
    Invalid(ApiError),
    /// The key is missing or does not work
    #[response(status = 401)]
    Unauthorized(ApiError),
    /// The balance or the key's budget does not cover the request
    #[response(status = 402)]
    TooPoor(ApiError),
    /// No such model
    #[response(status = 404)]
    NoSuchModel(ApiError),
    /// The body came too slowly
    #[response(status = 408)]
    TooSlow(ApiError),
    /// The Idempotency-Key was used for something else
    #[response(status = 409)]
    OtherRequest(ApiError),
    /// The body is over its limit
    #[response(status = 413)]
    TooLarge(ApiError),
    /// The body's content-encoding is not known
    #[response(status = 415)]
    Encoded(ApiError),
    /// The key's rate limit is used up, or the account has its part of the requests in progress
    #[response(status = 429)]
    TooMany(ApiError),
    /// The model server failed
    #[response(status = 502)]
    Failed(ApiError),
    /// No model server can serve it now
    #[response(status = 503)]
    Unavailable(ApiError),
    /// The model server took too long
    #[response(status = 504)]
    TooLate(ApiError),
}

/// Answers an inference call. `promised` is told what is known before its answer, once it is admitted.
pub(crate) async fn answer(
    app: &App,
    (kind, request): (CallKind, RequestId),
    call: Request,
    promised: impl FnOnce(Promise) + Send,
) -> Result<Response, ApiError> {
    let (mut parts, body) = call.into_parts();
    let caller = InferenceCaller::from_request_parts(&mut parts, app).await?;
    let began = Instant::now();
    let idempotency = idempotent::key(&parts.headers)?.map(IdempotencyKey);
    let brings = kind.hears() || kind.shows();
    let (body, (sound, shown), _places) = match multipart::boundary(&parts.headers).filter(|_| brings) {
        Some(boundary) => {
            let received = receive((app, caller.0.account, kind), &parts.headers, body, boundary);
            // Boxed: most calls need no room for it in their futures.
            let Received { members, sound, shown, places } = Box::pin(received).await?;
            (members, (sound, shown), places)
        }
        None => {
            let memory = app.bodies.of(caller.0.account);
            let body = body::read(&memory, &parts.headers, body, app.settings.max_body_bytes).await?;
            (body, (None, None), Vec::new())
        }
    };
    // Clients of OpenAI's read a member of theirs, whichever it is.
    let pictures_in_both = parts.uri.path().starts_with("/openai/");
    let (class, task) = (Class::Interactive, None);
    let inbound = Inbound { call: kind, body, request, class, task, sound, shown, pictures_in_both, idempotency };
    let reply = app.gateway.answer(&caller.0, inbound, promised).await?;
    let reply = if of_cohere(parts.uri.path()) { in_cohere_s_shape(reply) } else { reply };
    let mut response = render(app, reply);
    if kind == CallKind::Messages {
        told::name_for_messages(&mut response, request);
    }
    let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Ok(elapsed) = HeaderValue::from_str(itoa::Buffer::new().format(elapsed)) {
        response.headers_mut().insert(OPENAI_PROCESSING_MS, elapsed);
    }
    Ok(response)
}

/// The second version of Cohere's API, whose clients read more than the shape that everybody else knows.
fn of_cohere(path: &str) -> bool {
    CallKind::BESIDE.into_iter().any(|(beside, call)| call == CallKind::Rerank && path == beside)
}

fn in_cohere_s_shape(mut reply: Reply) -> Reply {
    match &mut reply.body {
        ReplyBody::Whole(body, _) => *body = with_meta(body),
        ReplyBody::Replay(stored) => {
            stored.body = stored.body.take().map(|body| with_meta(&body.into()).into());
        }
        ReplyBody::Stream(_) | ReplyBody::Sound(_) => {}
    }
    reply
}

fn render(app: &App, reply: Reply) -> Response {
    let Reply { rate, served, body } = reply;
    let mut response = match body {
        ReplyBody::Whole(bytes, content_type) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().reserve(ANSWER_HEADERS);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            with_rate(response, rate)
        }
        ReplyBody::Stream(stream) => {
            started(Body::new(EventBody::new(stream, app.settings.keep_alive, &app.readers)), rate)
        }
        ReplyBody::Sound(sound) => {
            let (kind, keep_alive) = (sound.content_type(), app.settings.keep_alive);
            let is_events = sound.is_events();
            let body = EventBody::of_sound(sound, keep_alive, is_events, &app.readers);
            let mut response = if is_events {
                started(Body::new(body), rate)
            } else {
                with_rate(Response::new(Body::new(body)), rate)
            };
            if !is_events {
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            response
        }
        ReplyBody::Replay(stored) => with_rate(replay(stored), rate),
    };
    if let Some(served) = served.and_then(|model| HeaderValue::try_from(model).ok()) {
        response.headers_mut().insert(MODEL_SERVED, served);
    }
    response
}

/// The answer that a stream begins with.
pub(crate) fn started(events: Body, rate: Option<RateInfo>) -> Response {
    let mut response = Response::new(events);
    stream_headers(response.headers_mut());
    with_rate(response, rate)
}

/// Whether an answer is a stream.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

fn with_rate(mut response: Response, rate: Option<RateInfo>) -> Response {
    if let Some(rate) = rate {
        rate_headers(rate, response.headers_mut());
    }
    response
}

fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
}

/// The first answer again.
fn replay(stored: StoredAnswer) -> Response {
    let is_stream = stored.content_type.starts_with("text/event-stream");
    let content_type = HeaderValue::from_str(&stored.content_type);
    let mut response = Body::from(stored.body.unwrap_or_default()).into_response();
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if is_stream {
        stream_headers(headers);
    } else {
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
    }
    headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}
