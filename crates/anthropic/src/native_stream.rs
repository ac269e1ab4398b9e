//! Holds: the events of a server that has the Messages protocol, on their way to the client.
//!
//! They pass as they come. The first one gets the message's public names; the last two wait, as they have the usage in them.

use batchin_openai::{Code, Names, Rewrite, Telling, Usage, hear, named_frame, rewrite};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::kind,
    wire::{Counts, Ended, ErrorDetail, Event, write_json},
};

/// A stream that passes.
pub(crate) struct Passing {
    id: String,
    model: String,
    /// The block that is open.
    open: Option<u64>,
    /// The data of the event that tells how it ended.
    last: Option<Bytes>,
    /// What is billed, where the server says something else.
    billed: Option<Usage>,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(rename = "type", default)]
    kind: &'a str,
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<StopReason<'a>>,
}

#[derive(Deserialize)]
struct StopReason<'a> {
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
}

/// A message under the public names.
pub(crate) fn told(message: &Bytes, names: Names<'_>, usage: Option<Usage>) -> Bytes {
    let mut set = vec![("id", json(&names.id)), ("model", json(&names.model))];
    set.extend(usage.map(|usage| ("usage", json(&Counts::from(usage)))));
    rewrite(message, &Rewrite { set: &set, ..Rewrite::default() })
}

fn json(value: &impl serde::Serialize) -> String {
    let mut out = Vec::new();
    write_json(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// An event's data with this member.
fn with(data: &[u8], member: &'static str, value: String) -> Bytes {
    rewrite(&Bytes::copy_from_slice(data), &Rewrite { set: &[(member, value)], ..Rewrite::default() })
}

impl Telling for Passing {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        let Ok(read) = serde_json::from_slice::<Read<'_>>(data) else { return Bytes::new() };
        match (read.kind, read.message) {
            ("", _) => {
                // What the gateway tells in the words of a chat.
                self.billed = hear(data).usage.or(self.billed);
                Bytes::new()
            }
            ("message_start", Some(message)) => {
                let message = Bytes::copy_from_slice(message.get().as_bytes());
                let names = Names { id: &self.id, model: &self.model, created: 0, tier: None };
                let message = told(&message, names, None);
                named_frame(read.kind, &with(data, "message", String::from_utf8_lossy(&message).into_owned()))
            }
            ("message_delta", _) if read.delta.and_then(|delta| delta.stop_reason).is_some() => {
                self.last.get_or_insert_with(|| Bytes::copy_from_slice(data));
                Bytes::new()
            }
            // It is told with the one before.
            ("message_stop", _) => Bytes::new(),
            (kind, _) => {
                match kind {
                    "content_block_start" => self.open = read.index,
                    "content_block_stop" => self.open = None,
                    _ => {}
                }
                named_frame(kind, data)
            }
        }
    }

    fn done(&mut self) -> Bytes {
        let mut out = Vec::new();
        let usage = self.billed.map(Counts::from);
        match (self.last.take(), usage) {
            (Some(data), None) => out.extend_from_slice(&named_frame("message_delta", &data)),
            (Some(data), Some(usage)) => {
                out.extend_from_slice(&named_frame("message_delta", &with(&data, "usage", json(&usage))));
            }
            // It was cut off.
            (None, usage) => {
                if let Some(index) = self.open.take() {
                    Event::ContentBlockStop { index }.write(&mut out);
                }
                let delta = Ended { stop_reason: "max_tokens", stop_sequence: None };
                Event::MessageDelta { delta, usage: usage.unwrap_or_default() }.write(&mut out);
            }
        }
        Event::MessageStop {}.write(&mut out);
        out.into()
    }

    fn failed(&mut self, code: Code, message: &str) -> Bytes {
        let mut out = Vec::new();
        Event::Error { error: ErrorDetail { kind: kind(code), message }, request_id: None }.write(&mut out);
        out.into()
    }
}

impl Passing {
    pub(crate) fn new(names: Names<'_>) -> Self {
        Self { id: names.id.to_owned(), model: names.model.to_owned(), open: None, last: None, billed: None }
    }
}
