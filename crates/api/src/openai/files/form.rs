//! Holds: receiving an upload: its fields in any order, its file as a stream.

use std::{fmt::Write as _, time::Duration};

use axum::body::{Body, BodyDataStream};
use batchin_domain::{AccountId, FilePurpose, text::echo};
use batchin_files::Upload;
use batchin_openai::Code;
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{app::App, error::ApiError};

/// A client that sends nothing for longer is not sending any more.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest upload: a gigabyte at 50 kB/s.
const WHOLE: Duration = Duration::from_secs(6 * 3_600);
/// What frames a file: the other fields, headers and boundaries.
const FRAME_BYTES: u64 = 64 * 1024;
/// Longest field beside the file, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Longest field that is passed over because it is not known, in bytes.
const MAX_UNKNOWN_BYTES: usize = 64 * 1024;
/// Fields of one upload; there are four.
const MAX_FIELDS: usize = 16;
/// Longest name of a file, in bytes: what file systems take.
const MAX_FILENAME_BYTES: usize = 255;
/// What may be said about when a file goes, in seconds.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;
/// When a batch's input goes if nothing is said.
const BATCH_EXPIRY: Duration = Duration::from_secs(2_592_000);

const FILE: &str = "file";
const PURPOSE: &str = "purpose";
const ANCHOR: &str = "expires_after[anchor]";
const SECONDS: &str = "expires_after[seconds]";

/// An upload that has been received; dropped, it is forgotten.
pub(super) struct Form {
    pub(super) upload: Upload,
    pub(super) purpose: FilePurpose,
    pub(super) filename: String,
    pub(super) expires_after: Option<Duration>,
    digest: [u8; 32],
}

impl Form {
    /// Tells apart what was sent from what else may be sent.
    pub(super) fn fingerprint(&self) -> String {
        let mut text = format!("{}\n{:?}\n{}\n", self.purpose.name(), self.expires_after, self.filename);
        for byte in self.digest {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Receives an upload. Its bytes are durable only when it is finished.
pub(super) async fn receive(app: &App, account: AccountId, headers: &HeaderMap, body: Body) -> Result<Form, ApiError> {
    let boundary = headers.get(CONTENT_TYPE).and_then(|value| multer::parse_boundary(value.to_str().ok()?).ok());
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let limit = app.files.max_bytes();
    let Some(boundary) = boundary else {
        let message = "The body must be multipart/form-data with the fields `file` and `purpose`.";
        return Err(ApiError::new(Code::InvalidRequest, message));
    };
    if stated.is_some_and(|length| length > limit.saturating_add(FRAME_BYTES)) {
        return Err(ApiError::file_too_large(limit));
    }
    let mut stream = body.into_data_stream();
    let fields = timeout(WHOLE, fields(app, account, &mut stream, boundary)).await;
    fields.unwrap_or_else(|_| Err(late())).and_then(Fields::check)
}

/// What has come of an upload.
#[derive(Default)]
struct Fields {
    file: Option<(Upload, String, [u8; 32])>,
    purpose: Option<FilePurpose>,
    anchor: Option<()>,
    seconds: Option<u64>,
}

async fn fields(
    app: &App,
    account: AccountId,
    stream: &mut BodyDataStream,
    boundary: String,
) -> Result<Fields, ApiError> {
    let mut form = Multipart::new(stream, boundary);
    let mut fields = Fields::default();
    for _ in 0..MAX_FIELDS {
        let Some(field) = arrived(form.next_field()).await? else { return Ok(fields) };
        let name = field.name().unwrap_or_default().to_owned();
        let is_again = match name.as_str() {
            FILE => fields.file.replace(file(app, account, field).await?).is_some(),
            PURPOSE => fields.purpose.replace(purpose(&text(PURPOSE, field).await?)?).is_some(),
            ANCHOR => fields.anchor.replace(anchor(&text(ANCHOR, field).await?)?).is_some(),
            SECONDS => fields.seconds.replace(seconds(&text(SECONDS, field).await?)?).is_some(),
            // Clients of other services say more than we take in; the answer shows what was taken.
            _ => {
                pass_over(field).await?;
                false
            }
        };
        if is_again {
            return Err(at(name, "is given more than once"));
        }
    }
    Err(ApiError::new(Code::InvalidRequest, format!("An upload has at most {MAX_FIELDS} fields.")))
}

impl Fields {
    fn check(self) -> Result<Form, ApiError> {
        let (upload, filename, digest) = self.file.ok_or_else(|| at(FILE, "is missing"))?;
        let purpose = self.purpose.ok_or_else(|| at(PURPOSE, "is missing"))?;
        if upload.bytes() == 0 {
            return Err(at(FILE, "is empty"));
        }
        let expires_after = match (self.anchor, self.seconds) {
            (Some(()), Some(seconds)) => Some(Duration::from_secs(seconds)),
            (Some(()), None) => return Err(at(SECONDS, "is missing")),
            (None, Some(_)) => return Err(at(ANCHOR, "is missing; it is `created_at`")),
            (None, None) => (purpose == FilePurpose::Batch).then_some(BATCH_EXPIRY),
        };
        Ok(Form { upload, purpose, filename, expires_after, digest })
    }
}

/// Stores the file as it comes.
async fn file(app: &App, account: AccountId, mut field: Field<'_>) -> Result<(Upload, String, [u8; 32]), ApiError> {
    let Some(name) = field.file_name() else {
        return Err(at(FILE, "is not a file: it has no `filename`; with curl it is written as -F file=@PATH"));
    };
    let (filename, mut digest) = (cleaned(name), Sha256::new());
    let mut upload = app.files.upload(account).await?;
    while let Some(bytes) = chunk(&mut field).await? {
        digest.update(&bytes);
        upload.write(bytes).await?;
    }
    Ok((upload, filename, digest.finalize().into()))
}

async fn text(name: &'static str, mut field: Field<'_>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = chunk(&mut field).await? {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_TEXT_BYTES {
            return Err(at(name, &format!("has more than {MAX_TEXT_BYTES} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| at(name, "is not UTF-8"))
}

/// Reads a field that means nothing here, and keeps nothing of it.
async fn pass_over(mut field: Field<'_>) -> Result<(), ApiError> {
    let mut seen = 0;
    while let Some(bytes) = chunk(&mut field).await? {
        seen += bytes.len();
        if seen > MAX_UNKNOWN_BYTES {
            let name = echo(field.name().unwrap_or_default());
            return Err(at(name, &format!("is not known and has more than {MAX_UNKNOWN_BYTES} bytes")));
        }
    }
    Ok(())
}

async fn chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
    arrived(field.chunk()).await
}

async fn arrived<T>(next: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
    match timeout(SILENCE, next).await {
        Ok(Ok(next)) => Ok(next),
        Ok(Err(cause)) => Err(broken(&cause)),
        Err(_) => Err(late()),
    }
}

fn purpose(name: &str) -> Result<FilePurpose, ApiError> {
    FilePurpose::from_name(name).filter(|purpose| purpose.is_for_uploads()).ok_or_else(|| {
        let names: Vec<_> =
            FilePurpose::ALL.into_iter().filter(|purpose| purpose.is_for_uploads()).map(FilePurpose::name).collect();
        at(PURPOSE, &format!("must be one of {}", names.join(", ")))
    })
}

fn anchor(text: &str) -> Result<(), ApiError> {
    if text == "created_at" { Ok(()) } else { Err(at(ANCHOR, "must be `created_at`")) }
}

fn seconds(text: &str) -> Result<u64, ApiError> {
    text.parse().ok().filter(|seconds| EXPIRY_SECONDS.contains(seconds)).ok_or_else(|| {
        let (least, most) = (EXPIRY_SECONDS.start(), EXPIRY_SECONDS.end());
        at(SECONDS, &format!("must be a whole number from {least} to {most}"))
    })
}

/// A name without folders and without characters that are not seen, in as many bytes as file systems take.
fn cleaned(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut cleaned: String = name.chars().filter(|c| !c.is_control()).collect();
    while cleaned.len() > MAX_FILENAME_BYTES {
        cleaned.pop();
    }
    let cleaned = cleaned.trim();
    if cleaned.is_empty() { FILE.to_owned() } else { cleaned.to_owned() }
}

fn at(field: impl Into<String>, message: &str) -> ApiError {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_folders_and_what_is_not_seen() {
        assert_eq!(cleaned("input.jsonl"), "input.jsonl");
        assert_eq!(cleaned("../../etc/passwd"), "passwd");
        assert_eq!(cleaned("C:\\data\\in put.jsonl"), "in put.jsonl");
        assert_eq!(cleaned("a\r\nb\0.txt "), "ab.txt");
        for empty in ["", "/", "..//", "\n"] {
            assert_eq!(cleaned(empty), "file");
        }
        let long = cleaned(&"ü".repeat(200));
        assert_eq!((long.len(), long.chars().all(|c| c == 'ü')), (254, true));
    }
}
