//! Holds: what a speech call asks for, for servers that are asked otherwise than in OpenAI's words; and its events.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::json;

use crate::sse;

/// What a speech call says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpeechAsked {
    /// The text.
    pub input: String,
    /// How it is to be spoken.
    pub instructions: Option<String>,
    /// How fast, where that is said.
    pub speed: Option<f64>,
}

/// Reads a body that [`peek`](crate::peek()) accepted; what it cannot read is not asked for.
pub fn speech_asked(body: &[u8]) -> SpeechAsked {
    let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |member: &str| said[member].as_str().map(str::to_owned);
    SpeechAsked {
        input: text("input").unwrap_or_default(),
        instructions: text("instructions"),
        speed: said["speed"].as_f64(),
    }
}

/// The event with some of a sound's bytes.
pub fn sound_event(sound: &[u8]) -> Bytes {
    let event = json!({ "type": "speech.audio.delta", "audio": STANDARD.encode(sound) });
    named("speech.audio.delta", &event)
}

/// The event that ends a sound. Tokens are counted of none; what it is billed by stands beside.
pub fn sound_done_event(characters: u64, audio_seconds: Option<f64>) -> Bytes {
    let mut usage = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "characters": characters });
    if let Some(seconds) = audio_seconds {
        usage["audio_seconds"] = seconds.into();
    }
    named("speech.audio.done", &json!({ "type": "speech.audio.done", "usage": usage }))
}

fn named(name: &str, event: &serde_json::Value) -> Bytes {
    [b"event: ", name.as_bytes(), b"\n", sse::frame(event.to_string().as_bytes()).as_ref()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_takes_nothing_else_with_it() {
        let asked = speech_asked(br#"{"input":"Hello","instructions":["whisper"],"speed":"2"}"#);
        assert_eq!(asked, SpeechAsked { input: "Hello".to_owned(), instructions: None, speed: None });
        let asked = speech_asked(br#"{"input":"Hello","instructions":"whisper","speed":2}"#);
        assert_eq!((asked.instructions.as_deref(), asked.speed), (Some("whisper"), Some(2.0)));
    }
}
