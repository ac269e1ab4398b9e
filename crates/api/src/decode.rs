//! Holds: request bodies that clients compress.

use std::{io, pin::Pin, sync::Arc};

use async_compression::{
    tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use axum::{BoxError, body::Body};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH},
};
use http_body::Body as HttpBody;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::{
    error::{ApiError, Code, echo},
    intake::{Edge, Lent},
};

/// What is decoded at a time, in bytes: whoever reads looks at its limit after each such piece.
const PIECE_BYTES: usize = 64 * 1024;
/// The largest zstd window, as a power of two: eight megabytes, which RFC 8878 recommends and all encoders keep to unless
/// told otherwise. What states more could take 128 MB a request.
const MAX_ZSTD_WINDOW: u32 = 23;
/// What can be decoded.
const CODINGS: &str = "gzip, deflate, br, zstd";

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// How the headers say that the body is compressed.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, ApiError> {
    let mut found = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = found.next() else { return Ok(None) };
    let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    match (name.as_str(), found.next()) {
        ("" | "identity", None) => Ok(None),
        ("gzip" | "x-gzip", None) => Ok(Some(Coding::Gzip)),
        ("deflate", None) => Ok(Some(Coding::Deflate)),
        ("br", None) => Ok(Some(Coding::Brotli)),
        ("zstd", None) => Ok(Some(Coding::Zstd)),
        _ => {
            let message = format!(
                "The content-encoding `{}` is not known; send the body plain or as one of {CODINGS}.",
                echo(&name)
            );
            Err(ApiError::new(Code::UnsupportedMediaType, message)
                .header(ACCEPT_ENCODING, HeaderValue::from_static(CODINGS))
                .permanent())
        }
    }
}

/// The body as it was before it was compressed, decoded as it is read. The headers speak of that one from now on.
pub(crate) fn decoded<B>(coding: Coding, body: Lent<B>, edge: Arc<Edge<B>>, headers: &mut HeaderMap) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    let pieces = Body::new(body).into_data_stream().map_err(io::Error::other).boxed();
    let raw = StreamReader::new(pieces);
    let reader: Pin<Box<dyn AsyncRead + Send>> = match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(raw);
            // As gzip's own tool: one file after the other is one file.
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
        Coding::Deflate => Box::pin(ZlibDecoder::new(raw)),
        Coding::Brotli => Box::pin(BrotliDecoder::new(raw)),
        Coding::Zstd => {
            let mut decoder = ZstdDecoder::with_params(raw, &[DParameter::window_log_max(MAX_ZSTD_WINDOW)]);
            // Several frames are one text, as RFC 8878 has it.
            decoder.multiple_members(true);
            Box::pin(decoder)
        }
    };
    let plain = ReaderStream::with_capacity(reader, PIECE_BYTES).inspect_err(move |_| edge.note_undecodable());
    Body::from_stream(plain)
}
