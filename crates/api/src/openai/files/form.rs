//! Holds: receiving an upload: its fields in any order, its file as a stream.

use std::{fmt::Write as _, time::Duration};

use axum::body::Body;
use batchin_domain::{AccountId, FilePurpose, text::echo};
use batchin_files::Upload;
use batchin_openai::Code;
use http::HeaderMap;
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};

use crate::{
    app::App,
    error::ApiError,
    multipart::{self, at, chunk, next_field, text},
};

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
    let Some(boundary) = multipart::boundary(headers) else {
        let message = "The body must be multipart/form-data with the fields `file` and `purpose`.";
        return Err(ApiError::new(Code::InvalidRequest, message));
    };
    let form = multipart::form(headers, body, (boundary, app.files.max_bytes()))?;
    multipart::within(fields(app, account, form)).await.and_then(Fields::check)
}

/// What has come of an upload.
#[derive(Default)]
struct Fields {
    file: Option<(Upload, String, [u8; 32])>,
    purpose: Option<FilePurpose>,
    anchor: Option<()>,
    seconds: Option<u64>,
}

async fn fields(app: &App, account: AccountId, mut form: Multipart<'_>) -> Result<Fields, ApiError> {
    let mut fields = Fields::default();
    for _ in 0..MAX_FIELDS {
        let Some(field) = next_field(&mut form).await? else { return Ok(fields) };
        let name = field.name().unwrap_or_default().to_owned();
        let is_again = match name.as_str() {
            FILE => fields.file.replace(file(app, account, field).await?).is_some(),
            PURPOSE => fields.purpose.replace(purpose(&text(field, PURPOSE, MAX_TEXT_BYTES).await?)?).is_some(),
            ANCHOR => fields.anchor.replace(anchor(&text(field, ANCHOR, MAX_TEXT_BYTES).await?)?).is_some(),
            SECONDS => fields.seconds.replace(seconds(&text(field, SECONDS, MAX_TEXT_BYTES).await?)?).is_some(),
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
