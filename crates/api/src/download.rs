//! Holds: bytes as a download that can be taken up again.

mod disposition;
mod part;

use std::{error::Error, ops::Range};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use tracing::warn;

use self::{
    disposition::attachment,
    part::{Part, asked},
};
use crate::error::ApiError;

/// What can be downloaded. It never changes.
pub(crate) struct Download<'a> {
    /// Names the content.
    pub(crate) id: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its media type.
    pub(crate) content_type: &'static str,
    /// What a client may call it.
    pub(crate) filename: &'a str,
}

impl Download<'_> {
    /// As much of it as is asked for; `content` reads a part that lies within it.
    pub(crate) fn answer<S, E>(
        &self,
        headers: &HeaderMap,
        content: impl FnOnce(Range<u64>) -> S,
    ) -> Result<Response, ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let etag = format!("\"{}\"", self.id);
        let (status, range) = match asked(headers, &etag, self.bytes) {
            Part::Whole => (StatusCode::OK, 0..self.bytes),
            Part::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
            Part::Outside => return Err(ApiError::outside(self.bytes)),
        };
        let id = self.id.clone();
        let pieces = content(range.clone()).inspect_err(move |cause| {
            // The client sees a connection that ends early.
            warn!(error = cause as &dyn Error, "{id} could not be read to its end");
        });
        let mut response = (status, Body::from_stream(pieces)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        headers.insert(CONTENT_DISPOSITION, attachment(self.filename));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(etag) = HeaderValue::try_from(etag) {
            headers.insert(ETAG, etag);
        }
        if status == StatusCode::PARTIAL_CONTENT
            && let Ok(part) = HeaderValue::try_from(format!("bytes {}-{}/{}", range.start, range.end - 1, self.bytes))
        {
            headers.insert(CONTENT_RANGE, part);
        }
        Ok(response)
    }
}
