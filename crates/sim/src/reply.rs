//! Holds: answers of the simulated server that come at once.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::behaviour::Refusal;

/// The connection is cut on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutError;

impl std::fmt::Display for CutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by script")
    }
}

impl std::error::Error for CutError {}

pub(crate) type SimBody = UnsyncBoxBody<Bytes, CutError>;

/// A refusal, with its own status, type and body.
pub(crate) fn refusal(refusal: &Refusal) -> Response<SimBody> {
    let mut response = respond(refusal.content_type, whole(refusal.body.clone()));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(value) = refusal.retry_after.as_ref().and_then(|value| value.parse().ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// With this media type.
pub(crate) fn respond(content_type: &'static str, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// All of it in one piece.
pub(crate) fn whole(body: Bytes) -> SimBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
