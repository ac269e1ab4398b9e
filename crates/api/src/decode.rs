//! Holds: request bodies that clients compress.

use std::{io, sync::Arc};

use axum::{BoxError, body::Body};
use batchin_domain::text::echo;
use batchin_openai::Code;
use batchin_upstream::{Coding, UnknownCoding};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH},
};
use http_body::Body as HttpBody;

use crate::{
    error::ApiError,
    intake::{Edge, Lent},
};

/// How the headers say that the body is compressed.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, ApiError> {
    Coding::of(headers).map_err(|UnknownCoding| {
        let said: Vec<_> = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
        let message = format!(
            "The content-encoding `{}` is not known; send the body plain or as one of {}.",
            echo(&String::from_utf8_lossy(&said.join(&b", "[..]))),
            Coding::NAMES
        );
        ApiError::new(Code::UnsupportedMediaType, message)
            .header(ACCEPT_ENCODING, HeaderValue::from_static(Coding::NAMES))
            .permanent()
    })
}

/// The body as it was before it was compressed, decoded as it is read. The headers speak of that one from now on.
pub(crate) fn decoded<B>(coding: Coding, body: Lent<B>, edge: Arc<Edge<B>>, headers: &mut HeaderMap) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let raw = Body::new(body).into_data_stream().map_err(io::Error::other);
    Body::from_stream(coding.decoded(raw).inspect_err(move |_| edge.note_undecodable()))
}
