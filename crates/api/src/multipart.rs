//! Holds: reading a form as it comes: its fields in order, each within its bound.

use std::time::Duration;

use axum::body::Body;
use batchin_openai::Code;
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use multer::{Field, Multipart};
use tokio::time::timeout;

use crate::error::ApiError;

/// A client that sends nothing for longer is not sending any more.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest upload: a gigabyte at 50 kB/s.
const WHOLE: Duration = Duration::from_secs(6 * 3_600);
/// What frames a file: the other fields, headers and boundaries.
const FRAME_BYTES: u64 = 64 * 1024;

/// The boundary of a form, where the headers say that the body is one.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_TYPE).and_then(|value| multer::parse_boundary(value.to_str().ok()?).ok())
}

/// The form in a body, unless its length says that its file is larger than `limit` bytes.
pub(crate) fn form(
    headers: &HeaderMap,
    body: Body,
    (boundary, limit): (String, u64),
) -> Result<Multipart<'static>, ApiError> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limit.saturating_add(FRAME_BYTES)) {
        return Err(ApiError::file_too_large(limit));
    }
    Ok(Multipart::new(body.into_data_stream(), boundary))
}

/// What is made of a form, unless that takes longer than any upload.
pub(crate) async fn within<T>(made: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    timeout(WHOLE, made).await.unwrap_or_else(|_| Err(late()))
}

/// The next field.
pub(crate) async fn next_field<'r>(form: &mut Multipart<'r>) -> Result<Option<Field<'r>>, ApiError> {
    arrived(form.next_field()).await
}

/// More of a field.
pub(crate) async fn chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
    arrived(field.chunk()).await
}

/// A field that is text, of at most so many bytes.
pub(crate) async fn text(mut field: Field<'_>, name: &str, most: usize) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = chunk(&mut field).await? {
        text.extend_from_slice(&bytes);
        if text.len() > most {
            return Err(at(name, &format!("has more than {most} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| at(name, "is not UTF-8"))
}

async fn arrived<T>(next: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
    match timeout(SILENCE, next).await {
        Ok(Ok(next)) => Ok(next),
        Ok(Err(cause)) => Err(broken(&cause)),
        Err(_) => Err(late()),
    }
}

/// A field is at fault; what is said follows its name.
pub(crate) fn at(field: impl Into<String>, message: &str) -> ApiError {
    let field = field.into();
    ApiError::new(Code::InvalidRequest, format!("The field `{field}` {message}.")).at(field)
}

fn broken(cause: &multer::Error) -> ApiError {
    let message = match cause {
        multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteStream
        | multer::Error::StreamReadFailed(_) => "The body broke off.",
        _ => "The body is not multipart/form-data as its content-type says.",
    };
    ApiError::new(Code::InvalidRequest, message)
}

fn late() -> ApiError {
    ApiError::new(Code::RequestTimeout, "The body did not arrive in time.")
}
