//! Holds: what a stream chunk says, and the frame that carries it on to the client.
//!
//! One borrowing pass and one allocation per chunk; the text of a delta is measured, not decoded.

use std::{ops::ControlFlow, ops::Range};

use bytes::Bytes;

use crate::{
    error::{UpstreamError, from_value},
    members::{each_item, each_member, quoted, range_in},
    said::{Said, tool_calls_bytes},
    usage::{Usage, parse_usage},
};

/// What one chunk of a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkFacts {
    /// `choices` is there and not empty.
    pub has_choices: bool,
    /// Choices whose delta has content: text, reasoning, a refusal or a tool call. At least one token each.
    pub deltas: u32,
    /// Bytes of text in it, as in [`WholeAnswer`](crate::WholeAnswer).
    pub text_bytes: u64,
    /// Counts so far or in all, when the chunk carries them.
    pub usage: Option<Usage>,
    /// Some choice has a finish reason.
    pub finish: bool,
    /// The stream failed.
    pub error: Option<UpstreamError>,
}

/// The event's data is no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event's data is not a JSON object")]
pub struct ChunkError;

/// The public names that every chunk of one stream gets.
#[derive(Clone, Debug)]
pub struct ChunkNames {
    id: String,
    model: String,
}

/// A chunk ready to be sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramedChunk {
    /// `data: …` and the blank line, with the public id and model.
    pub frame: Bytes,
    /// What the chunk says.
    pub facts: ChunkFacts,
}

impl ChunkFacts {
    /// Reads the data of one event.
    pub fn of(data: &[u8]) -> Result<Self, ChunkError> {
        let text = std::str::from_utf8(data).map_err(|_| ChunkError)?;
        Ok(read(text)?.0)
    }
}

impl ChunkNames {
    /// The names to put in.
    pub fn new(id: &str, model: &str) -> Self {
        Self { id: quoted(id), model: quoted(model) }
    }

    /// Reads the data of one event and frames it under these names.
    pub fn frame(&self, data: &[u8]) -> Result<FramedChunk, ChunkError> {
        let text = std::str::from_utf8(data).map_err(|_| ChunkError)?;
        let (facts, places) = read(text)?;
        Ok(FramedChunk { frame: self.written(text, &places), facts })
    }

    fn written(&self, text: &str, places: &Places) -> Bytes {
        const AROUND: usize = "data: ,\"id\":,\"model\":\n\n".len();
        let mut out = Vec::with_capacity(text.len() + self.id.len() + self.model.len() + AROUND);
        out.extend_from_slice(b"data: ");
        let start = out.len();
        let (id, model) = ((places.id.as_ref(), &self.id), (places.model.as_ref(), &self.model));
        let model_first = matches!((&places.id, &places.model), (Some(id), Some(model)) if model.start < id.start);
        let mut from = 0;
        for (place, name) in if model_first { [model, id] } else { [id, model] } {
            if let Some(place) = place {
                out.extend_from_slice(&text.as_bytes()[from..place.start]);
                out.extend_from_slice(name.as_bytes());
                from = place.end;
            }
        }
        let end = text.trim_end();
        let rest = end.strip_suffix('}').unwrap_or(end);
        out.extend_from_slice(rest.as_bytes().get(from..).unwrap_or_default());
        let mut empty = places.empty;
        for (key, (place, name)) in [("\"id\":", id), ("\"model\":", model)] {
            if place.is_none() {
                out.extend_from_slice(if empty { b"" } else { b"," });
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(name.as_bytes());
                empty = false;
            }
        }
        out.push(b'}');
        // A line break in JSON is white space, but in an event it would end the data.
        if memchr::memchr2(b'\n', b'\r', &out[start..]).is_some() {
            out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
        out.extend_from_slice(b"\n\n");
        out.into()
    }
}

#[derive(Default)]
struct Places {
    id: Option<Range<usize>>,
    model: Option<Range<usize>>,
    empty: bool,
}

fn read(text: &str) -> Result<(ChunkFacts, Places), ChunkError> {
    let mut facts = ChunkFacts::default();
    let mut places = Places { empty: true, ..Places::default() };
    let mut bad_choices = false;
    let mut failed = None;
    each_member(text, |key, value| {
        places.empty = false;
        match key.as_ref() {
            "id" => places.id = Some(range_in(text, value.get())),
            "model" => places.model = Some(range_in(text, value.get())),
            "usage" => facts.usage = parse_usage(value),
            "error" if value.get() != "null" => failed = Some(value),
            "choices" if value.get() != "null" => match read_choices(value.get()) {
                Some(choices) => {
                    facts.has_choices = choices.count > 0;
                    facts.deltas = choices.deltas;
                    facts.text_bytes = choices.text_bytes;
                    facts.finish = choices.finish;
                }
                None => bad_choices = true,
            },
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .map_err(|_| ChunkError)?;
    if bad_choices {
        return Err(ChunkError);
    }
    if failed.is_some() {
        facts.error = serde_json::from_str(text).ok().map(|value| from_value(&value));
    }
    Ok((facts, places))
}

#[derive(Default)]
struct Choices {
    count: u32,
    deltas: u32,
    text_bytes: u64,
    finish: bool,
}

/// `None` when it is no list of choices.
fn read_choices(json: &str) -> Option<Choices> {
    let (mut all, mut fits) = (Choices::default(), true);
    each_item(json, |choice| match read_choice(choice.get()) {
        Some(choice) => {
            all.count = all.count.saturating_add(1);
            all.deltas = all.deltas.saturating_add(u32::from(choice.content));
            all.text_bytes = all.text_bytes.saturating_add(choice.text_bytes);
            all.finish |= choice.ends;
        }
        None => fits = false,
    })
    .ok()?;
    fits.then_some(all)
}

struct Choice {
    content: bool,
    text_bytes: u64,
    ends: bool,
}

fn read_choice(json: &str) -> Option<Choice> {
    let (mut said, mut fits, mut ends) = (Said::default(), true, false);
    each_member(json, |key, value| {
        match key.as_ref() {
            "delta" if value.get() != "null" => fits &= read_delta(value.get(), &mut said).is_some(),
            "text" => said.member("content", value),
            "finish_reason" => ends = value.get() != "null",
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    fits.then_some(Choice { content: said.content, text_bytes: said.bytes(), ends })
}

fn read_delta(json: &str, said: &mut Said) -> Option<()> {
    each_member(json, |key, value| {
        said.member(&key, value);
        if key == "tool_calls" {
            said.add(tool_calls_bytes(value.get()));
        }
        ControlFlow::Continue(())
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn facts(data: &str) -> ChunkFacts {
        ChunkFacts::of(data.as_bytes()).unwrap()
    }

    #[test]
    fn deltas_are_counted_by_content() {
        let deltas = |choices: &str| facts(&format!(r#"{{"choices":[{choices}]}}"#)).deltas;
        assert_eq!(deltas(r#"{"delta":{"role":"assistant","content":""}}"#), 0);
        assert_eq!(deltas(r#"{"delta":{"role":"assistant","content":null}}"#), 0);
        assert_eq!(deltas(r#"{"delta":{"content":"a"}},{"delta":{"content":"b"}}"#), 2);
        assert_eq!(deltas(r#"{"delta":{"reasoning":"a","content":null}}"#), 1);
        assert_eq!(deltas(r#"{"delta":{"reasoning_content":"a"}}"#), 1);
        assert_eq!(deltas(r#"{"delta":{"tool_calls":[{"index":0}]}}"#), 1);
        assert_eq!(deltas(r#"{"delta":{"tool_calls":[]}}"#), 0);
        assert_eq!(deltas(r#"{"text":"a"},{"text":""}"#), 1);
        assert_eq!(deltas(r#"{"delta":null}"#), 0);
    }

    #[test]
    fn ends_are_told_apart() {
        let end = facts(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#);
        assert_eq!((end.finish, end.has_choices, end.usage), (true, true, None));
        let usage = facts(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
        assert_eq!((usage.finish, usage.has_choices, usage.usage.unwrap().completion_tokens), (false, false, Some(2)));
        let zero = facts(r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#);
        assert_eq!(zero.usage, None);
        let failed = facts(r#"{"error":{"message":"boom at /a/b","code":500}}"#);
        assert_eq!(failed.error.unwrap().message, "boom at [path]");
        assert_eq!(facts(r#"{"error":null,"choices":null}"#), ChunkFacts::default());
        assert_eq!(ChunkFacts::of(b"[DONE]"), Err(ChunkError));
        assert_eq!(ChunkFacts::of(br#"{"choices":{}}"#), Err(ChunkError));
    }

    #[test]
    fn frame_carries_the_public_names() {
        let names = ChunkNames::new("chatcmpl_1", "qwen");
        let framed = |data: &str| names.frame(data.as_bytes()).unwrap().frame;
        assert_eq!(
            framed(r#"{"id":"x","object":"o","model":"/m/q.gguf","choices":[{"delta":{"content":"a"}}]}"#),
            "data: {\"id\":\"chatcmpl_1\",\"object\":\"o\",\"model\":\"qwen\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
        );
        assert_eq!(framed(r#"{"model":"y","id":"x"}"#), "data: {\"model\":\"qwen\",\"id\":\"chatcmpl_1\"}\n\n");
        assert_eq!(framed("{\"a\":1}"), "data: {\"a\":1,\"id\":\"chatcmpl_1\",\"model\":\"qwen\"}\n\n");
        assert_eq!(framed("{}"), "data: {\"id\":\"chatcmpl_1\",\"model\":\"qwen\"}\n\n");
        assert_eq!(framed("{\"id\":1,\n\"model\":2 }\n"), "data: {\"id\":\"chatcmpl_1\", \"model\":\"qwen\" }\n\n");
    }
}
