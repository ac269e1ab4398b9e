//! Holds: making a voice of a recording.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_gateway::{RecordingError, recording};
use batchin_openai::Code;
use batchin_store::{KeepVoiceError, MAX_VOICES, NewVoice, VoiceSound};
use bytes::Bytes;
use http::StatusCode;
use multer::{Constraints, Multipart, SizeLimit};
use serde::Deserialize;
use utoipa::ToSchema;

use super::VoiceObject;
use crate::{app::App, auth::AccountCaller, body, error::ApiError, multipart::boundary};

/// Half a minute in any format, and a few seconds of the largest.
const MAX_RECORDING_BYTES: usize = 4_000_000;
/// Base64 is a third longer, and texts stand beside it.
const MAX_BODY_BYTES: usize = 5_500_000;
/// Longest name, in bytes, as that of any voice.
const MAX_NAME_BYTES: usize = 128;
/// What is said in a minute has fewer.
const MAX_WORDS_BYTES: usize = 4_096;
/// A sentence, or the number of a signed form.
const MAX_CONSENT_BYTES: usize = 1_024;
/// Of less, servers make nothing.
const SHORTEST: Duration = Duration::from_secs(1);
/// Servers need no more, and some refuse it.
const LONGEST: Duration = Duration::from_secs(60);

/// A recording and what belongs to it; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateVoice;

/// What a client says of a voice.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ref_text: String,
    #[serde(default)]
    consent: String,
    /// In JSON: a data URI.
    #[serde(default)]
    audio_sample: String,
    #[serde(skip)]
    sound: Bytes,
}

/// Make a voice of a recording
///
/// Speech calls name it as their `voice`, on model servers that can sound like a recording.
#[utoipa::path(post, path = "/v1/audio/voices", tag = "Voices",
    request_body(content((CreateVoice = "multipart/form-data"), (CreateVoice = "application/json"))),
    responses(
    (status = 201, description = "The voice", body = VoiceObject),
    (status = 400, description = "A field is at fault", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 408, description = "The body came too slowly", body = ApiError),
    (status = 409, description = "The account has a voice of that name", body = ApiError),
    (status = 413, description = "The recording is too large, or the account keeps no more voices", body = ApiError),
    (status = 429, description = "The account has as many large bodies on their way as it may", body = ApiError),
    (status = 503, description = "Too many large bodies at once", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<(StatusCode, Json<VoiceObject>), ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let said = match boundary(&parts.headers) {
        Some(boundary) => of_form(body, boundary).await?,
        None => of_json(&body)?,
    };
    check(&said)?;
    let facts = recording(said.sound.clone()).await.map_err(|cause| unreadable(&cause))?;
    if !(SHORTEST..=LONGEST).contains(&facts.duration) {
        let message = format!(
            "The recording lasts {:.1} s; it must last from {} to {} s.",
            facts.duration.as_secs_f64(),
            SHORTEST.as_secs(),
            LONGEST.as_secs()
        );
        return Err(at("audio_sample", message));
    }
    let recording =
        VoiceSound { sound: said.sound.to_vec(), content_type: facts.content_type.to_owned(), words: said.ref_text };
    let new = NewVoice {
        account: caller.account,
        name: said.name,
        recording,
        consent: said.consent,
        duration: facts.duration,
        now: app.now(),
    };
    let row = app.voices.keep_voice(&new).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

async fn of_form(body: Bytes, boundary: String) -> Result<Said, ApiError> {
    let limits = SizeLimit::new().per_field(MAX_RECORDING_BYTES as u64);
    let stream = Body::from(body).into_data_stream();
    let mut form = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(limits));
    let mut said = Said::default();
    while let Some(field) = form.next_field().await.map_err(broken_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(broken_form)?;
        let text = || String::from_utf8(bytes.to_vec()).map_err(|_| at(&name, "It must be text in UTF-8."));
        match name.as_str() {
            "name" => said.name = text()?,
            "ref_text" => said.ref_text = text()?,
            "consent" => said.consent = text()?,
            "audio_sample" => said.sound = bytes,
            // Clients add members of their own.
            _ => {}
        }
    }
    Ok(said)
}

fn of_json(body: &[u8]) -> Result<Said, ApiError> {
    let said: Said = serde_json::from_slice(body).map_err(|cause| {
        let message =
            format!("The body must be a form, or JSON with name, ref_text, consent and audio_sample: {cause}.");
        ApiError::new(Code::InvalidRequest, message)
    })?;
    let encoded = said.audio_sample.split_once(";base64,").filter(|(head, _)| head.starts_with("data:audio/"));
    let shape = || at("audio_sample", "It must be a data URI such as \"data:audio/wav;base64,…\".");
    let sound = encoded.and_then(|(_, encoded)| STANDARD.decode(encoded).ok()).ok_or_else(shape)?;
    Ok(Said { sound: sound.into(), ..said })
}

fn check(said: &Said) -> Result<(), ApiError> {
    let texts = [
        ("name", &said.name, MAX_NAME_BYTES),
        ("ref_text", &said.ref_text, MAX_WORDS_BYTES),
        ("consent", &said.consent, MAX_CONSENT_BYTES),
    ];
    for (member, text, most) in texts {
        if text.trim().is_empty() {
            let why = match member {
                "ref_text" => "say what is said in the recording",
                "consent" => "say that the speaker agrees, or name the form in which they do",
                _ => "name the voice",
            };
            return Err(at(member, format!("`{member}` is required: {why}.")));
        }
        if text.len() > most {
            return Err(at(member, format!("`{member}` must have at most {most} bytes.")));
        }
        // No database stores U+0000, and a name stands in paths.
        let is_odd =
            text.chars().any(|symbol| symbol.is_control() || symbol == '/') || matches!(text.as_str(), "." | "..");
        if text.contains('\0') || (member == "name" && is_odd) {
            let rule = "must not have control characters, and a name no slash, nor be one dot or two";
            return Err(at(member, format!("`{member}` {rule}.")));
        }
    }
    match said.sound.len() {
        0 => Err(at("audio_sample", "`audio_sample` is required: send the recording.")),
        size if size > MAX_RECORDING_BYTES => Err(ApiError::too_large(MAX_RECORDING_BYTES)),
        _ => Ok(()),
    }
}

fn at(member: &str, message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::invalid(member.to_owned(), message)
}

fn unreadable(cause: &RecordingError) -> ApiError {
    at("audio_sample", format!("The recording cannot be read: {cause}."))
}

fn broken_form(cause: multer::Error) -> ApiError {
    match cause {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            ApiError::too_large(MAX_RECORDING_BYTES)
        }
        _ => ApiError::new(Code::InvalidRequest, "The body is no form that can be read."),
    }
}

impl From<KeepVoiceError> for ApiError {
    fn from(cause: KeepVoiceError) -> Self {
        match cause {
            KeepVoiceError::Taken => {
                Self::new(Code::Conflict, "This account has a voice of that name; delete it first, or choose another.")
            }
            KeepVoiceError::Full => {
                let message = format!("This account keeps no more than {MAX_VOICES} voices; delete some.");
                Self::new(Code::PayloadTooLarge, message)
            }
            KeepVoiceError::Store(cause) => cause.into(),
        }
    }
}
