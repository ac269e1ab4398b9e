//! Holds: reading a request's body within its bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_LENGTH, header::EXPECT};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::error::{ApiError, Code};

/// A body that takes longer is not being sent any more.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read and thrown away of a body over its limit, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: u64 = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The body, if it has at most `limit` bytes.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limit as u64) {
        // A client that asked first has not sent anything.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(ApiError::too_large(limit));
    }
    match timeout(BODY_TIMEOUT, collect(&mut body, limit)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            drain(body).await;
            Err(ApiError::too_large(limit))
        }
        Ok(Err(())) => Err(ApiError::new(Code::InvalidRequest, "The body broke off.")),
        Err(_) => Err(ApiError::new(Code::RequestTimeout, "The body did not arrive in time.")),
    }
}

/// `None` when it is over the limit. A body that comes in one piece is not copied.
async fn collect(body: &mut Body, limit: usize) -> Result<Option<Bytes>, ()> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(drop)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Ok(None);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
            first.clear();
        }
        rest.extend_from_slice(&data);
    }
    Ok(Some(if rest.is_empty() { first } else { rest.freeze() }))
}

async fn drain(mut body: Body) {
    let throw_away = async {
        let mut seen = 0_u64;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            if seen > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    // The answer is the same whether or not the rest came.
    let _ = timeout(DRAIN_TIMEOUT, throw_away).await;
}
