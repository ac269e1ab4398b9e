//! Holds: the sound that a request brings: read before anything is asked, since it costs by how long it lasts.

use std::{borrow::Cow, ops::ControlFlow, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_media::{SoundError, SoundFacts, probe_sound};
use batchin_openai::{InvalidRequest, each_member};
use batchin_upstream::{Content, Upload};
use bytes::Bytes;
use serde_json::value::RawValue;
use tracing::warn;

use crate::probing::apart;

/// The member of a body, or the field of a form, that is the sound.
const FILE: &str = "file";

/// A sound, and how long it lasts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sound {
    pub(crate) upload: Arc<Upload>,
    /// Milliseconds, by what is in it.
    pub(crate) ms: u64,
}

impl Sound {
    /// Reads as much of a file as tells how long it lasts.
    ///
    /// # Errors
    ///
    /// The file is none that is read here; the message lists those that are.
    pub async fn read(content: Content) -> Result<Self, InvalidRequest> {
        apart(|| Self::of(content)).await.unwrap_or_else(|| Err(unread()))
    }

    /// Reads the sound that a JSON body has in it, without keeping others waiting.
    pub(crate) async fn in_body(body: Bytes) -> Result<Self, InvalidRequest> {
        apart(move || Self::of_body(&body)).await.unwrap_or_else(|| Err(unread()))
    }

    /// The same, at once.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, InvalidRequest> {
        Self::of(Content::Memory(file_of(body)?))
    }

    fn of(content: Content) -> Result<Self, InvalidRequest> {
        // What servers are told of a file is what was found in it, not what a client says.
        let mut upload = Upload { field: FILE, content, name: String::new(), content_type: String::new() };
        if upload.bytes() == 0 {
            return Err(InvalidRequest::at(FILE, "`file` is empty; send a file of sound"));
        }
        let bare = Arc::new(upload);
        let SoundFacts { format, duration, .. } = probe_sound(bare.reader()).map_err(|cause| refused(&cause))?;
        upload = Arc::into_inner(bare).ok_or_else(unread)?;
        upload.name = format!("sound.{}", format.name());
        format.media_type().clone_into(&mut upload.content_type);
        let ms = u64::try_from(duration.as_micros().saturating_add(500) / 1_000).unwrap_or(u64::MAX);
        Ok(Self { upload: Arc::new(upload), ms })
    }
}

fn refused(cause: &SoundError) -> InvalidRequest {
    if let SoundError::Io(cause) = cause {
        warn!(error = cause as &dyn std::error::Error, "an upload could not be read again");
    }
    InvalidRequest::at(FILE, format!("`file` cannot be heard: {cause}"))
}

fn unread() -> InvalidRequest {
    InvalidRequest::at(FILE, "`file` could not be read; send it again")
}

/// The bytes of the one `file` of a JSON body.
fn file_of(body: &[u8]) -> Result<Bytes, InvalidRequest> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let (mut file, mut times) = (None::<&RawValue>, 0);
    let listed = each_member(text, |key, value| {
        if key == FILE {
            (file, times) = (Some(value), times + 1);
        }
        ControlFlow::Continue(())
    });
    listed?;
    let at = |message: &str| InvalidRequest::at(FILE, message);
    let Some(file) = file else {
        return Err(at("`file` is required: send multipart/form-data, or a data URI in JSON"));
    };
    if times > 1 {
        return Err(at("`file` stands in the body more than once; send it once"));
    }
    let uri: Cow<'_, str> = serde_json::from_str::<Text<'_>>(file.get()).map(|text| text.0).unwrap_or_default();
    let inside = uri.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let Some((_, encoded)) = inside else {
        return Err(at("`file` must be a data URI such as \"data:audio/wav;base64,…\"; addresses are not fetched"));
    };
    STANDARD.decode(encoded).map(Bytes::from).map_err(|_| at("`file` is not the base64 that its data URI says"))
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    /// So many 16-bit samples of one channel at 8 kHz.
    fn wav(samples: u32) -> Vec<u8> {
        let bytes = samples * 2;
        let mut wav = Vec::new();
        wav.extend_from_slice(b"RIFF");
        wav.extend_from_slice(&(36 + bytes).to_le_bytes());
        wav.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        wav.extend_from_slice(&8_000_u32.to_le_bytes());
        wav.extend_from_slice(&16_000_u32.to_le_bytes());
        wav.extend_from_slice(b"\x02\0\x10\0data");
        wav.extend_from_slice(&bytes.to_le_bytes());
        wav.resize(wav.len() + bytes as usize, 0);
        wav
    }

    #[test]
    fn a_sound_lasts_as_long_as_its_samples() {
        for (samples, ms) in [(8_000, 1_000), (4, 1), (12_004, 1_501), (3, 0)] {
            let body = format!(r#"{{"file":"data:audio/x;base64,{}"}}"#, STANDARD.encode(wav(samples)));
            let sound = Sound::of_body(body.as_bytes()).unwrap();
            assert_eq!(
                (sound.ms, sound.upload.name.as_str(), sound.upload.content_type.as_str()),
                (ms, "sound.wav", "audio/wav")
            );
        }
    }

    #[test]
    fn what_is_no_sound_is_refused_by_its_member() {
        let garbage = format!(r#"{{"file":"data:audio/wav;base64,{}"}}"#, STANDARD.encode([7_u8; 5_000]));
        for (body, said) in [
            ("{}", "is required"),
            (r#"{"file":null}"#, "must be a data URI"),
            (r#"{"file":"https://example.com/a.wav"}"#, "addresses are not fetched"),
            (r#"{"file":"sha256:00"}"#, "must be a data URI"),
            (r#"{"file":"data:audio/wav;base64,*"}"#, "is not the base64"),
            (r#"{"file":"data:audio/wav;base64,"}"#, "is empty"),
            (r#"{"file":"data:,","file":"data:,"}"#, "more than once"),
            (&*garbage, "wav, mp3"),
        ] {
            let fault = Sound::of_body(body.as_bytes()).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some("file"), "{body}");
            assert!(fault.message.contains(said), "{}", fault.message);
        }
        assert_eq!(Sound::of_body(b"[]").unwrap_err().param, None);
    }
}
