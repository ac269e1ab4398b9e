//! Holds: what every inference call does: read the body, ask the gateway, render its answer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use batchin_domain::{Class, RequestId};
use batchin_gateway::{IdempotencyKey, Inbound, RateInfo, Reply, ReplyBody};
use batchin_openai::Endpoint;
use batchin_store::StoredAnswer;
use bytes::Bytes;
use futures::Stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use utoipa::IntoResponses;

use crate::{
    app::App,
    auth::InferenceCaller,
    body::{self, Place, Received},
    error::{ApiError, rate_headers},
    idempotent,
    openapi::ErrorObject,
};

/// Silence after which a stream says that it is still there: half of what common proxies allow.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Headers of an answer, room for which is made at once.
const ANSWER_HEADERS: usize = 8;
/// A comment, which clients of server-sent events pass over.
const KEEP_ALIVE_FRAME: &[u8] = b": keep-alive\n\n";

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const OPENAI_PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// How an inference call can be refused, for the description of the API.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what ApiError makes")]
pub(crate) enum Refusals {
    /// The request is at fault
    #[response(status = 400)]
    Invalid(ErrorObject),
    /// The key is missing or does not work
    #[response(status = 401)]
    Unauthorized(ErrorObject),
    /// The balance or the key's budget does not cover the request
    #[response(status = 402)]
    TooPoor(ErrorObject),
    /// No such model
    #[response(status = 404)]
    NoSuchModel(ErrorObject),
    /// The Idempotency-Key was used for something else
    #[response(status = 409)]
    OtherRequest(ErrorObject),
    /// The body is over its limit
    #[response(status = 413)]
    TooLarge(ErrorObject),
    /// The key's rate limit is used up
    #[response(status = 429)]
    TooMany(ErrorObject),
    /// The model server failed
    #[response(status = 502)]
    Failed(ErrorObject),
    /// No model server can serve it now
    #[response(status = 503)]
    Unavailable(ErrorObject),
    /// The model server took too long
    #[response(status = 504)]
    TooLate(ErrorObject),
}

/// Answers an inference call.
pub(crate) async fn answer(
    app: &App,
    endpoint: Endpoint,
    request: RequestId,
    call: Request,
) -> Result<Response, ApiError> {
    let (mut parts, body) = call.into_parts();
    let caller = InferenceCaller::from_request_parts(&mut parts, app).await?;
    let began = Instant::now();
    let idempotency = idempotent::key(&parts.headers)?.map(IdempotencyKey);
    let Received { bytes: body, place } =
        body::read(&app.bodies, &parts.headers, body, app.settings.max_body_bytes).await?;
    let inbound = Inbound { endpoint, body, request, class: Class::Interactive, task: None, idempotency };
    let reply = app.gateway.answer(&caller.0, inbound).await?;
    let mut response = render(reply, place);
    let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Ok(elapsed) = HeaderValue::from_str(itoa::Buffer::new().format(elapsed)) {
        response.headers_mut().insert(OPENAI_PROCESSING_MS, elapsed);
    }
    Ok(response)
}

fn render(reply: Reply, place: Place) -> Response {
    let Reply { rate, body } = reply;
    match body {
        ReplyBody::Whole(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().reserve(ANSWER_HEADERS);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            with_rate(response, rate)
        }
        ReplyBody::Stream(stream) => {
            let mut response = Response::new(Body::new(EventBody::new(*stream, KEEP_ALIVE, place)));
            stream_headers(response.headers_mut());
            with_rate(response, rate)
        }
        ReplyBody::Replay(stored) => with_rate(replay(stored), rate),
    }
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
    let mut response = Body::from(stored.body.unwrap_or_default()).into_response();
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if is_stream {
        stream_headers(headers);
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Events as a body that is never silent for long.
struct EventBody<S> {
    events: S,
    keep_alive: Duration,
    /// When the last frame left.
    last: Instant,
    /// Moved only when it fires, since moving it with every frame would cost more than the frame.
    silence: Pin<Box<Sleep>>,
    /// The request's body lives as long as the stream.
    _place: Place,
}

impl<S> EventBody<S> {
    fn new(events: S, keep_alive: Duration, place: Place) -> Self {
        let last = Instant::now();
        Self { events, keep_alive, last, silence: Box::pin(sleep_until(last + keep_alive)), _place: place }
    }
}

impl<S: Stream<Item = Bytes> + Unpin> HttpBody for EventBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.events).poll_next(cx) {
            Poll::Ready(Some(bytes)) => {
                this.last = Instant::now();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        while this.silence.as_mut().poll(cx).is_ready() {
            let due = this.last + this.keep_alive;
            if due <= Instant::now() {
                this.last = Instant::now();
                this.silence.as_mut().reset(this.last + this.keep_alive);
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE_FRAME)))));
            }
            this.silence.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use http_body_util::BodyExt;

    use super::*;

    async fn next<S: Stream<Item = Bytes> + Unpin>(body: &mut EventBody<S>) -> Option<Bytes> {
        Some(body.frame().await?.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn only_silence_is_broken() {
        let (mut events, received) = mpsc::channel(8);
        let mut body = EventBody::new(received, Duration::from_millis(5), Place::default());
        for _ in 0..3 {
            assert_eq!(next(&mut body).await.unwrap(), KEEP_ALIVE_FRAME);
        }
        events.try_send(Bytes::from_static(b"data: 1\n\n")).unwrap();
        drop(events);
        assert_eq!(next(&mut body).await.unwrap(), "data: 1\n\n");
        assert_eq!(next(&mut body).await, None);

        let (mut events, received) = mpsc::channel(8);
        let mut body = EventBody::new(received, Duration::from_secs(3_600), Place::default());
        for text in ["a", "b"] {
            events.try_send(Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!(next(&mut body).await.unwrap(), text);
        }
    }
}
