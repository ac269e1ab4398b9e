//! Holds: a request to servers that have the Responses protocol themselves: what they are sent, and what they answer.

use std::{fmt::Write as _, ops::ControlFlow};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    native_stream::{Passing, told},
    reading::members_of,
};
use crate::{
    AnswerError, AskedNatively, ChunkError, ChunkFacts, Names, Native, NativeEvents, Rewrite, Telling, Usage,
    WholeAnswer,
    blank::says_something,
    members::{each_item, each_member},
    rewrite,
    said::{argument_bytes, string_bytes},
    upstream_error_message,
    usage::response_usage,
};

/// Members that [`ask_as_chat`](super::ask_as_chat) takes only where they ask for nothing, and those that are about what a
/// server's operator stores.
const LEFT_OUT: &[&str] = &[
    "background",
    "client_metadata",
    "context_management",
    "conversation",
    "moderation",
    "previous_response_id",
    "prompt",
    "prompt_cache_options",
];

/// Deepest nesting of lists within an item of the output that text is looked for in.
const MAX_DEPTH: u32 = 3;

/// Asks a request that [`ask_as_chat`](super::ask_as_chat) has taken of servers that have the protocol.
pub fn ask_natively(body: &Bytes) -> AskedNatively {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let [input, metadata] = members_of(text, ["input", "metadata"]).unwrap_or_default();
    let set: Vec<_> = input.and_then(without_references).map(|input| ("input", input)).into_iter().collect();
    let asked = rewrite(body, &Rewrite { set: &set, remove: LEFT_OUT, ..Rewrite::default() });
    let metadata = metadata.map(|metadata| metadata.get().to_owned());
    AskedNatively::new(asked, "input", Box::new(Own { metadata }))
}

/// The items without those that refer to what a server would have stored; `None` where there are none such.
fn without_references(input: &RawValue) -> Option<String> {
    let (mut kept, mut refers) = (String::from("["), false);
    each_item(input.get(), |item: &RawValue| {
        let [kind] = members_of(item.get(), ["type"]).unwrap_or_default();
        if kind.is_some_and(|kind| kind.get() == r#""item_reference""#) {
            refers = true;
        } else {
            let _ = write!(kept, "{}{}", if kept.len() > 1 { "," } else { "" }, item.get());
        }
    })
    .ok()?;
    kept.push(']');
    refers.then_some(kept)
}

/// A request in its own protocol.
#[derive(Debug)]
struct Own {
    /// The client's own, which goes to no server and stands in the answer.
    metadata: Option<String>,
}

impl Native for Own {
    fn read(&self, answer: &Bytes) -> Result<WholeAnswer, AnswerError> {
        let none = AnswerError::NotAnAnswer;
        let text = std::str::from_utf8(answer).map_err(|_| none.clone())?;
        let names = ["output", "usage", "status", "error", "message", "detail"];
        let [output, usage, status, error, message, detail] = members_of(text, names).ok_or(none.clone())?;
        let is_told = [error, message, detail].into_iter().flatten().any(|value| says_something(value.get()));
        let has_ended = status.is_none_or(|status| matches!(status.get(), r#""completed""# | r#""incomplete""#));
        let Some(output) = output.filter(|output| has_ended && output.get().starts_with('[')) else {
            return Err(if is_told { AnswerError::Refused(upstream_error_message(500, answer)) } else { none });
        };
        let usage = usage.and_then(response_usage);
        let is_counted = usage.is_some_and(|usage| usage.counts_completion());
        let text_bytes = if is_counted { 0 } else { said(output.get(), 0) };
        Ok(WholeAnswer { body: answer.clone(), usage, text_bytes })
    }

    fn events(&self) -> Box<dyn NativeEvents> {
        Box::new(Events::default())
    }

    fn whole(&self, answer: &Bytes, names: Names<'_>, usage: Option<Usage>) -> Bytes {
        told(answer, (names, self.metadata.as_deref()), usage)
    }

    fn stream(&self, names: Names<'_>) -> Box<dyn Telling> {
        Box::new(Passing::new(names, self.metadata.clone()))
    }
}

/// Bytes of text in items of the output: what is said, thought and called.
fn said(json: &str, depth: u32) -> u64 {
    let mut sum = 0_u64;
    let _listed = each_item(json, |item: &RawValue| {
        let _members = each_member(item.get(), |key, value| {
            let bytes = match key.as_ref() {
                "text" | "refusal" | "name" => string_bytes(value.get()),
                "arguments" | "input" => argument_bytes(value.get()),
                "content" | "summary" if depth < MAX_DEPTH => said(value.get(), depth + 1),
                _ => 0,
            };
            sum = sum.saturating_add(bytes);
            ControlFlow::Continue(())
        });
    });
    sum
}

/// What a stream's events say.
#[derive(Default)]
struct Events {
    has_begun: bool,
    has_ended: bool,
    /// What was said since the last event that told a text once more, whole.
    has_grown: bool,
}

/// What an event tells, by the members that are read of it.
#[derive(Default)]
struct Told<'a> {
    kind: &'a str,
    response: Option<&'a RawValue>,
    /// A part of a text.
    delta: Option<&'a RawValue>,
    /// A text, whole.
    whole: Option<&'a RawValue>,
    error: bool,
}

impl<'a> Told<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut told = Self::default();
        each_member(text, |key, value| {
            match key.as_ref() {
                "type" => told.kind = value.get().trim_matches('"'),
                "response" => told.response = Some(value),
                "delta" => told.delta = Some(value),
                "text" | "refusal" | "arguments" | "input" => told.whole = Some(value),
                "error" => told.error |= says_something(value.get()),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        Some(told)
    }
}

impl NativeEvents for Events {
    fn facts(&mut self, data: &[u8]) -> Result<ChunkFacts, ChunkError> {
        let text = std::str::from_utf8(data).map_err(|_| ChunkError::NotAChunk)?;
        let told = Told::read(text).ok_or(ChunkError::NotAChunk)?;
        let [usage, error] = match told.response {
            Some(response) => members_of(response.get(), ["usage", "error"]).unwrap_or_default(),
            None => [None, None],
        };
        let usage = usage.and_then(response_usage);
        let mut facts = ChunkFacts { has_choices: true, usage, has_usage: usage.is_some(), ..ChunkFacts::default() };
        match told.kind {
            "response.completed" | "response.incomplete" => {
                facts.ends = u32::from(!std::mem::replace(&mut self.has_ended, true));
            }
            "response.failed" | "response.cancelled" => {
                let error = error.map_or("{}", RawValue::get);
                facts.error = Some(upstream_error_message(500, error.as_bytes()));
            }
            "error" => facts.error = Some(upstream_error_message(500, data)),
            "" if told.error => facts.error = Some(upstream_error_message(500, data)),
            // What a proxy says for itself.
            "" | "ping" | "keepalive" => return Ok(ChunkFacts::default()),
            kind if kind.ends_with(".delta") => facts.text_bytes = self.grow(told.delta),
            kind if kind.ends_with(".done") => facts.text_bytes = self.close(told.whole),
            _ => {}
        }
        facts.deltas = u32::from(facts.text_bytes > 0);
        self.has_begun = true;
        Ok(facts)
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl Events {
    fn grow(&mut self, delta: Option<&RawValue>) -> u64 {
        let bytes = delta.map_or(0, |delta| string_bytes(delta.get()));
        self.has_grown |= bytes > 0;
        bytes
    }

    /// Bytes of a text that is told whole and was not told in parts.
    fn close(&mut self, whole: Option<&RawValue>) -> u64 {
        match whole {
            Some(_) if std::mem::take(&mut self.has_grown) => 0,
            Some(whole) => string_bytes(whole.get()),
            None => 0,
        }
    }
}
