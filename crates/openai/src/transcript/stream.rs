//! Holds: a stream of what is said: servers' events read as chunks, and chunks told as OpenAI's events.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{usage, with_duration};
use crate::{Code, Telling, members::quoted, sse};

const DELTA: &str = "transcript.text.delta";
const SEGMENT: &str = "transcript.text.segment";
const DONE: &str = "transcript.text.done";

/// An event of OpenAI's, or a whole answer.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
}

/// The data of an event, or a whole answer that came for a stream, as a chunk of a chat with the event in it. What is a
/// chunk already, or none of these, stays as it is.
pub fn transcript_as_chunk(data: &Bytes) -> Bytes {
    let Ok(Event { kind, delta, text, choices: None }) = serde_json::from_slice(data) else { return data.clone() };
    let event = data.trim_ascii();
    let said = |raw: Option<&RawValue>| raw.map_or("\"\"", RawValue::get).to_owned();
    match (kind.as_deref(), text) {
        (Some(DELTA), _) => chunk(&format!("\"delta\":{{\"content\":{}}}", said(delta)), "null", Some(event)),
        (Some(SEGMENT), _) => chunk("\"delta\":{}", "null", Some(event)),
        (Some(DONE), _) => chunk("\"delta\":{}", "\"stop\"", Some(event)),
        // A server that knows no streams.
        (None, Some(text)) if text.get().starts_with('"') => {
            chunk(&format!("\"message\":{{\"content\":{}}}", said(Some(text))), "\"stop\"", None)
        }
        _ => data.clone(),
    }
}

fn chunk(said: &str, reason: &str, event: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::from(format!("{{\"choices\":[{{\"index\":0,{said},\"finish_reason\":{reason}").as_bytes());
    if let Some(event) = event {
        out.put_slice(b",\"event\":");
        out.put_slice(event);
    }
    out.put_slice(b"}]}");
    out.freeze()
}

/// A chunk, as far as it is told.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

/// Chunks told as events. The last of them has the whole text, and what it costs.
pub(super) struct Stream {
    text: String,
    sound_ms: u64,
    /// As the server told it.
    done: Option<Bytes>,
}

impl Stream {
    pub(super) const fn new(sound_ms: u64) -> Self {
        Self { text: String::new(), sound_ms, done: None }
    }

    fn told(&mut self, choice: &Choice<'_>) -> Option<Bytes> {
        let content = choice.delta.as_ref().and_then(|delta| delta.content.as_deref()).unwrap_or_default();
        self.text.push_str(content);
        match choice.event {
            Some(event) if is_done(event) => {
                self.done = Some(Bytes::copy_from_slice(event.get().as_bytes()));
                None
            }
            Some(event) => Some(sse::frame(event.get().as_bytes())),
            None if content.is_empty() => None,
            None => Some(sse::frame(format!("{{\"type\":\"{DELTA}\",\"delta\":{}}}", quoted(content)).as_bytes())),
        }
    }
}

fn is_done(event: &RawValue) -> bool {
    serde_json::from_str::<Event<'_>>(event.get()).is_ok_and(|event| event.kind.as_deref() == Some(DONE))
}

impl Telling for Stream {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        let Ok(Chunk { choices }) = serde_json::from_slice(data) else { return Bytes::new() };
        let frames: Vec<Bytes> = choices.iter().filter_map(|choice| self.told(choice)).collect();
        frames.concat().into()
    }

    fn done(&mut self) -> Bytes {
        let event = match &self.done {
            Some(event) => with_duration(event, self.sound_ms),
            None => {
                let (text, usage) = (quoted(&self.text), usage(self.sound_ms));
                format!("{{\"type\":\"{DONE}\",\"text\":{text},\"usage\":{usage}}}").into()
            }
        };
        sse::frame(&event)
    }

    fn failed(&mut self, _: Code, _: &str) -> Bytes {
        // Errors are told as they are in streams of chats.
        Bytes::new()
    }
}
