//! Holds: what the body of a speech call says in its own way.

use batchin_domain::{Counts, Measure};
use serde_json::value::RawValue;
use unicode_normalization::UnicodeNormalization;

use super::{Found, InputBound, InvalidRequest, Ways, scalar};
use crate::wanted::{SoundFormat, Spoken};

/// OpenAI's limit on the text of one call, in Unicode scalars.
pub const MAX_SPEECH_CHARACTERS: u64 = 4_096;

/// Speech is at least twice as fast in any language, at the usual speed, pauses included: what a second costs is held for
/// by it.
const MOST_MS_PER_CHARACTER: f64 = 500.0;
/// Silence around it.
const SILENCE_MS: f64 = 5_000.0;

const SLOWEST: f64 = 0.25;
const FASTEST: f64 = 4.0;

pub(super) const WAYS: Ways =
    Ways { bound, check: |_, _| Ok(()), least_output: 1, max_output: |_| None, echoes: false };

/// No tokens: characters, and what they can last.
fn bound(found: &Found<'_>) -> Result<InputBound, InvalidRequest> {
    let characters = characters(found.input)?;
    let speed = speed(found.speed)?;
    let most_ms = (characters as f64 * MOST_MS_PER_CHARACTER / speed + SILENCE_MS).ceil();
    // At most 4,096 characters at a quarter of the speed.
    let made = Counts::NONE.with(Measure::Characters, characters).with(Measure::AudioMs, most_ms as u64);
    Ok(InputBound { items: 1, made, ..InputBound::default() })
}

pub(super) fn wanted(found: &Found<'_>) -> Result<Spoken, InvalidRequest> {
    reference(found.ref_audio)?;
    Ok(Spoken { format: format(found.response_format)?, as_events: as_events(found.stream_format)? })
}

/// How many scalars the text has in normalisation form C: what is charged, however its accents are spelled.
fn characters(raw: Option<&RawValue>) -> Result<u64, InvalidRequest> {
    const NAME: &str = "input";
    scalar::unread_text(NAME, raw)?;
    let Some(raw) = raw else {
        return Err(InvalidRequest::at(NAME, "`input` is required: give the text to speak as a string"));
    };
    let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
        let message = "`input` has a \\u escape that is half a character; send whole characters";
        return Err(InvalidRequest::at(NAME, message));
    };
    let count = text.nfc().count() as u64;
    if text.trim().is_empty() {
        return Err(InvalidRequest::at(NAME, "`input` must have something to speak in it"));
    }
    if count > MAX_SPEECH_CHARACTERS {
        let message = format!("`input` has {count} characters; at most {MAX_SPEECH_CHARACTERS} per call");
        return Err(InvalidRequest::at(NAME, message));
    }
    Ok(count)
}

fn speed(raw: Option<&RawValue>) -> Result<f64, InvalidRequest> {
    let Some(raw) = raw else { return Ok(1.0) };
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(value) if (SLOWEST..=FASTEST).contains(&value) => Ok(value),
        _ => Err(InvalidRequest::at("speed", format!("`speed` must be a number from {SLOWEST} to {FASTEST}"))),
    }
}

fn format(raw: Option<&RawValue>) -> Result<SoundFormat, InvalidRequest> {
    let Some(raw) = raw else { return Ok(SoundFormat::DEFAULT) };
    let named = serde_json::from_str::<&str>(raw.get()).ok().and_then(SoundFormat::from_name);
    named.ok_or_else(|| {
        let known = SoundFormat::ALL.map(SoundFormat::name).join(", ");
        InvalidRequest::at("response_format", format!("`response_format` must be one of {known}"))
    })
}

fn as_events(raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    match raw.map(RawValue::get) {
        None | Some("\"audio\"") => Ok(false),
        Some("\"sse\"") => Ok(true),
        Some(_) => Err(InvalidRequest::at("stream_format", "`stream_format` must be \"audio\" or \"sse\"")),
    }
}

/// The name of the voice, where one is asked for: a text, or `{"id": …}` as OpenAI has it for voices that were made.
pub(super) fn voice_name(raw: Option<&RawValue>) -> Result<Option<String>, InvalidRequest> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Voice {
        Name(String),
        Made { id: String },
    }
    let Some(raw) = raw else { return Ok(None) };
    let is_plain = |name: &String| {
        !name.is_empty() && name.len() <= MAX_VOICE_BYTES && !name.chars().any(|symbol| symbol.is_control())
    };
    match serde_json::from_str(raw.get()) {
        Ok(Voice::Name(name) | Voice::Made { id: name }) if is_plain(&name) => Ok(Some(name)),
        _ => {
            let message =
                format!("`voice` must be a name of at most {MAX_VOICE_BYTES} bytes, or {{\"id\": …}} with one");
            Err(InvalidRequest::at("voice", message))
        }
    }
}

/// The longest name of a voice, in bytes.
const MAX_VOICE_BYTES: usize = 128;

/// A voice to be imitated comes in the request or is one of the account's: a model server would fetch any address from
/// where it stands, its own disk included.
fn reference(raw: Option<&RawValue>) -> Result<(), InvalidRequest> {
    let Some(raw) = raw else { return Ok(()) };
    let text = serde_json::from_str::<std::borrow::Cow<'_, str>>(raw.get()).unwrap_or_default();
    if text.starts_with("data:audio/") {
        return Ok(());
    }
    let message = "`ref_audio` must be a data URI such as \"data:audio/wav;base64,…\"; addresses are not fetched";
    Err(InvalidRequest::at("ref_audio", message))
}
