//! Holds: chunks that are those before them but for their text, as most chunks of a stream are.
//!
//! JSON that has been read means the same with another text in the place of its only one. Such a chunk is known by the
//! bytes around its text, and is not read again.

use std::ops::{ControlFlow, Range};

use serde_json::value::RawValue;

use crate::{
    ChunkFacts,
    members::{each_item, each_member, range_in},
    said::inner_bytes,
    usage::count,
};

/// Chunks in a row that are learnt and like no chunk after them; then the stream is one whose chunks always differ.
const MOST_MISSED: u8 = 8;

/// What the chunks of a stream are like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alike {
    known: Option<Around>,
    missed: u8,
}

/// A chunk without its text.
#[derive(Clone, Debug)]
struct Around {
    before: Box<str>,
    behind: Box<str>,
}

/// Where a chunk's only text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnlyText {
    /// Without its quotes.
    pub(crate) at: Range<usize>,
    /// The choice that says it.
    pub(crate) index: u64,
    /// The member that it is the value of.
    pub(crate) key: Box<str>,
}

impl Alike {
    /// The text of a chunk, as it lies between its quotes, where that is all that it says anew. It is not empty.
    pub(crate) fn text_of<'a>(&mut self, chunk: &'a [u8]) -> Option<&'a str> {
        let Around { before, behind } = self.known.as_ref()?;
        let text = chunk.strip_prefix(before.as_bytes())?.strip_suffix(behind.as_bytes())?;
        let text = std::str::from_utf8(text).ok().filter(|text| lies_in_quotes(text))?;
        self.missed = 0;
        Some(text)
    }

    /// Learns from a chunk that has been read and says this.
    pub(crate) fn learn(&mut self, chunk: &str, facts: &ChunkFacts) -> Option<OnlyText> {
        let is_plain = facts.deltas == 1 && facts.ends == 0 && !facts.has_usage && facts.error.is_none();
        if !is_plain || self.missed >= MOST_MISSED {
            return None;
        }
        let only = only_text(chunk)?;
        let (before, behind) = (chunk.get(..only.at.start)?, chunk.get(only.at.end..)?);
        self.known = Some(Around { before: before.into(), behind: behind.into() });
        self.missed += 1;
        Some(only)
    }

    /// Nothing is known of the next chunk.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }
}

/// What a chunk says whose only text this is.
pub(crate) fn facts_of(text: &str) -> ChunkFacts {
    ChunkFacts { has_choices: true, deltas: 1, text_bytes: inner_bytes(text), ..ChunkFacts::default() }
}

/// Whether this is a JSON string once there are quotes around it. One with `\u` is read.
fn lies_in_quotes(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'"' | ..b' ' => false,
            b'\\' => matches!(bytes.next(), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')),
            _ => true,
        };
        if !fits {
            return false;
        }
    }
    !text.is_empty()
}

/// The text of a chunk that says one text and nothing else that adds to an answer.
fn only_text(chunk: &str) -> Option<OnlyText> {
    let mut choices = Once::default();
    each_member(chunk, |key, value| {
        if key == "choices" {
            choices.take(value);
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    let mut choice = Once::default();
    each_item(choices.value()?.get(), |one: &RawValue| choice.take(one)).ok()?;
    let (mut index, mut delta, mut text) = (Once::default(), Once::default(), Once::default());
    let mut fits = true;
    each_member(choice.value()?.get(), |key, value| {
        match key.as_ref() {
            "index" => index.take(value),
            "delta" => delta.take(value),
            "text" => text.take(value),
            "message" => fits = false,
            "logprobs" => fits &= value.get() == "null",
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    let (key, value) = match (delta.value(), text.value()) {
        (Some(delta), None) => only_member(delta.get())?,
        (None, Some(text)) => (Box::from("text"), text),
        _ => return None,
    };
    let json = value.get();
    let is_text = json.len() > 2 && json.starts_with('"');
    let place = range_in(chunk, json);
    let index = count(index.value()?.get())?;
    (fits && is_text).then(|| OnlyText { at: place.start + 1..place.end - 1, index, key })
}

/// The only member of a delta that says something, beside whose delta it is.
fn only_member(delta: &str) -> Option<(Box<str>, &RawValue)> {
    let mut said = Once::default();
    let mut name = None;
    let mut fits = true;
    each_member(delta, |key, value| {
        match (key.as_ref(), value.get()) {
            ("role", _) | (_, "null" | "\"\"") | ("tool_calls", "[]") => {}
            ("content" | "refusal" | "reasoning" | "reasoning_content", _) => {
                name = Some(Box::from(key.as_ref()));
                said.take(value);
            }
            _ => fits = false,
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    name.zip(said.value()).filter(|_| fits)
}

/// A value that may be there once.
#[derive(Default)]
struct Once<'a> {
    value: Option<&'a RawValue>,
    again: bool,
}

impl<'a> Once<'a> {
    fn take(&mut self, value: &'a RawValue) {
        self.again |= self.value.replace(value).is_some();
    }

    fn value(&self) -> Option<&'a RawValue> {
        self.value.filter(|_| !self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(chunk: &str) -> Option<(Alike, OnlyText)> {
        let facts = ChunkFacts::of(chunk.as_bytes()).unwrap();
        let mut alike = Alike::default();
        let only = alike.learn(chunk, &facts)?;
        Some((alike, only))
    }

    #[test]
    fn a_chunk_is_known_by_what_is_around_its_text() {
        let chunk = |text: &str| {
            format!(
                r#"{{"id":"a","choices":[{{"index":2,"delta":{{"role":"assistant","content":"{text}"}},"logprobs":null}}]}}"#
            )
        };
        let (mut alike, only) = learnt(&chunk("one")).unwrap();
        assert_eq!((only.index, &*only.key, &chunk("one")[only.at]), (2, "content", "one"));
        for text in ["two", " \\n", "é\\\"", "\\\\", "}"] {
            let known = chunk(text);
            assert_eq!(alike.text_of(known.as_bytes()), Some(text));
            assert_eq!(facts_of(text), ChunkFacts::of(known.as_bytes()).unwrap(), "{text}");
        }
        for other in ["", "\"", "\\", "\\x", "\\\\\"", "a\n", "a\",\"refusal\":\"no", "\\u0061"] {
            assert_eq!(alike.text_of(chunk(other).as_bytes()), None, "{other}");
        }
        assert_eq!(alike.text_of(&[chunk("a").as_bytes(), b" "].concat()), None);
        let broken = chunk("a").replace('a', "\u{e9}").into_bytes();
        let broken: Vec<u8> = broken.into_iter().filter(|byte| *byte != 0xc3).collect();
        assert_eq!(alike.text_of(&broken), None);
        assert!(learnt(r#"{"choices":[{"index":0,"text":"a"}]}"#).is_some());
    }

    #[test]
    fn what_says_more_than_one_text_is_read() {
        for chunk in [
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"choices":[]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"text":"b"}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a","reasoning":"b"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a","of_a_server":"b"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":["a"]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
            r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
        ] {
            assert!(learnt(chunk).is_none(), "{chunk}");
        }
    }

    #[test]
    fn a_stream_whose_chunks_differ_is_learnt_from_no_more() {
        let mut alike = Alike::default();
        let learn = |alike: &mut Alike, at: u32| {
            let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"a"}}}}],"obfuscation":"{at}"}}"#);
            let facts = ChunkFacts::of(chunk.as_bytes()).unwrap();
            let known = alike.text_of(chunk.as_bytes()).is_some();
            (known, alike.learn(&chunk, &facts).is_some())
        };
        for at in 0..u32::from(MOST_MISSED) {
            assert_eq!(learn(&mut alike, at), (false, true));
        }
        assert_eq!(learn(&mut alike, 99), (false, false));
    }
}
