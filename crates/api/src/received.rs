//! Holds: receiving files and what is to be done with them, as a form: its fields in any order, its files on the disk.

use std::fmt::Write as _;

use axum::body::Body;
use batchin_domain::{AccountId, CallKind};
use batchin_gateway::{AdmitError, Brought, MAX_SHOWN, Shown, Sound};
use batchin_openai::{Code, MAX_PICTURE_PROMPT};
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

/// Longest prompt of a picture, in bytes: its characters have at most four.
const MAX_PROMPT_BYTES: usize = 4 * MAX_PICTURE_PROMPT;

const FILE: &str = "file";
const MASK: &str = "mask";
const IMAGE: &str = "image";
const IMAGES: &str = "image[]";
const PROMPT: &str = "prompt";

/// Fields that are numbers in JSON, where their text is one.
const NUMBERS: [&str; 8] = [
    "temperature",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "output_compression",
    "num_inference_steps",
];

/// What a form brought.
pub(crate) struct Received {
    /// Its fields as the members of an object. Those of files say which they were, so that the same form is known again.
    pub(crate) members: Bytes,
    /// The sound, of a call that hears one.
    pub(crate) sound: Option<Sound>,
    /// The pictures, of a call that changes some.
    pub(crate) shown: Option<Shown>,
    /// The files' places among the uploads of this node, for as long as they are used.
    pub(crate) places: Vec<Share<AccountId>>,
}

/// A file that came, and the field that it was.
struct Sent {
    field: String,
    spooled: Spooled,
    digest: [u8; 32],
}

/// Receives a form of which this is the boundary.
pub(crate) async fn receive(
    (app, account, call): (&App, AccountId, CallKind),
    headers: &HeaderMap,
    body: Body,
    boundary: String,
) -> Result<Received, ApiError> {
    let form = multipart::form(headers, body, (boundary, app.settings.max_sound_bytes))?;
    let (mut members, files) = multipart::within(fields((app, account, call), form)).await?;
    let (mut sound, mut brought, mut places) = (None, Brought::default(), Vec::with_capacity(files.len()));
    for Sent { field, spooled: Spooled { file, bytes, place }, digest } in files {
        note(&mut members, &field, name_of(&digest))?;
        places.push(place);
        let content = Content::File { file, bytes };
        match field.as_str() {
            FILE => sound = Some(content),
            MASK => brought.mask = Some(content),
            _ => brought.images.push(content),
        }
    }
    let (sound, shown) = if call.shows() {
        (None, Some(Shown::read(brought).await.map_err(AdmitError::Invalid)?))
    } else {
        let content = sound.ok_or_else(|| at(FILE, "is missing"))?;
        (Some(Sound::read(content).await.map_err(AdmitError::Invalid)?), None)
    };
    Ok(Received { members: Value::Object(members).to_string().into(), sound, shown, places })
}

/// Whether a field is a file, and whether it may come more than once.
fn as_file(call: CallKind, field: &str) -> Option<bool> {
    match field {
        FILE if call.hears() => Some(false),
        MASK if call.shows() => Some(false),
        IMAGE | IMAGES if call.shows() => Some(true),
        _ => None,
    }
}

async fn fields(
    (app, account, call): (&App, AccountId, CallKind),
    mut form: Multipart<'_>,
) -> Result<(Map<String, Value>, Vec<Sent>), ApiError> {
    let (mut members, mut files) = (Map::new(), Vec::<Sent>::new());
    for _ in 0..MAX_FIELDS {
        let Some(field) = next_field(&mut form).await? else { return Ok((members, files)) };
        let name = field.name().unwrap_or_default().to_owned();
        let is_again = match as_file(call, &name) {
            Some(several) => {
                if files.len() > MAX_SHOWN {
                    return Err(at(name, &format!("is given too often: at most {MAX_SHOWN} times")));
                }
                let is_again = !several && files.iter().any(|sent| sent.field == name);
                let (spooled, digest) = file(app, account, field).await?;
                files.push(Sent { field: name.clone(), spooled, digest });
                is_again
            }
            None => {
                let most = if call.shows() && name == PROMPT { MAX_PROMPT_BYTES } else { MAX_TEXT_BYTES };
                let value = text(field, &name, most).await?;
                note(&mut members, &name, value)?
            }
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
    if let (IMAGE, Some(known)) = (name, members.get_mut(name)) {
        let first = std::mem::take(known);
        *known = Value::Array(match first {
            Value::Array(items) => items.into_iter().chain([text.into()]).collect(),
            first => vec![first, text.into()],
        });
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
async fn file(app: &App, account: AccountId, mut field: Field<'_>) -> Result<(Spooled, [u8; 32]), ApiError> {
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
