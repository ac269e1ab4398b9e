//! Holds: receiving a sound and what is to be done with it, as a form: its fields in any order, its file on the disk.

use std::fmt::Write as _;

use axum::body::Body;
use batchin_domain::AccountId;
use batchin_gateway::{AdmitError, Sound};
use batchin_openai::Code;
use batchin_shares::Share;
use batchin_upstream::Content;
use bytes::Bytes;
use http::HeaderMap;
use multer::{Field, Multipart};
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use batchin_files::Spooled;

use crate::{
    app::App,
    error::ApiError,
    multipart::{self, at, chunk, next_field, text},
};

/// Fields of one form: OpenAI's API has nine, and model servers a few more.
const MAX_FIELDS: usize = 64;
/// Longest field beside the file, in bytes: no server reads as long a prompt.
const MAX_TEXT_BYTES: usize = 16 * 1024;

const FILE: &str = "file";

/// Fields that are numbers in JSON, where their text is one.
const NUMBERS: [&str; 5] = ["temperature", "n", "best_of", "max_tokens", "max_completion_tokens"];

/// What a form brought.
pub(crate) struct Brought {
    /// Its fields as the members of an object. That of the file says which it was, so that the same form is known again.
    pub(crate) members: Bytes,
    /// The file.
    pub(crate) sound: Sound,
    /// Its place among the uploads of this node, for as long as it is used.
    pub(crate) place: Share<AccountId>,
}

/// Receives a form of which this is the boundary.
pub(crate) async fn receive(
    (app, account): (&App, AccountId),
    headers: &HeaderMap,
    body: Body,
    boundary: String,
) -> Result<Brought, ApiError> {
    let form = multipart::form(headers, body, (boundary, app.settings.max_sound_bytes))?;
    let (mut members, file) = multipart::within(fields(app, account, form)).await?;
    let (Spooled { file, bytes, place }, digest) = file.ok_or_else(|| at(FILE, "is missing"))?;
    let sound = Sound::read(Content::File { file, bytes }).await.map_err(AdmitError::Invalid)?;
    members.insert(FILE.to_owned(), name_of(&digest).into());
    Ok(Brought { members: Value::Object(members).to_string().into(), sound, place })
}

type Sent = (Spooled, [u8; 32]);

async fn fields(
    app: &App,
    account: AccountId,
    mut form: Multipart<'_>,
) -> Result<(Map<String, Value>, Option<Sent>), ApiError> {
    let (mut members, mut sent) = (Map::new(), None);
    for _ in 0..MAX_FIELDS {
        let Some(field) = next_field(&mut form).await? else { return Ok((members, sent)) };
        let name = field.name().unwrap_or_default().to_owned();
        let is_again = if name == FILE {
            sent.replace(file(app, account, field).await?).is_some()
        } else {
            let value = text(field, &name, MAX_TEXT_BYTES).await?;
            note(&mut members, &name, value)?
        };
        if is_again {
            return Err(at(name, "is given more than once"));
        }
    }
    Err(ApiError::new(Code::InvalidRequest, format!("A form has at most {MAX_FIELDS} fields.")))
}

/// Notes a field; says whether it was there before. Of lists there are many.
fn note(members: &mut Map<String, Value>, name: &str, text: String) -> Result<bool, ApiError> {
    if name.ends_with("[]") {
        let list = members.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(items) = list {
            items.push(text.into());
        }
        return Ok(false);
    }
    let value = if name == "stream" {
        Value::Bool(flag(&text).ok_or_else(|| at(name, "must be true or false"))?)
    } else if NUMBERS.contains(&name) {
        serde_json::from_str::<Number>(text.trim()).map_or(Value::String(text), Value::Number)
    } else {
        Value::String(text)
    };
    Ok(members.insert(name.to_owned(), value).is_some())
}

/// As Python's clients and browsers write one.
fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" | "" => Some(false),
        _ => None,
    }
}

/// Puts the file on the disk as it comes.
async fn file(app: &App, account: AccountId, mut field: Field<'_>) -> Result<Sent, ApiError> {
    let mut digest = Sha256::new();
    let mut spool = app.files.spool(account, app.settings.max_sound_bytes).await?;
    while let Some(bytes) = chunk(&mut field).await? {
        digest.update(&bytes);
        spool.write(&bytes).await?;
    }
    Ok((spool.finish().await?, digest.finalize().into()))
}

fn name_of(digest: &[u8; 32]) -> String {
    let mut name = "sha256:".to_owned();
    for byte in digest {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
