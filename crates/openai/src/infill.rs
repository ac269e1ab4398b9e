//! Holds: what llama.cpp's `/infill` answers, told as a text completion.
//!
//! It has a shape of its own, whole and in streams, in which a stream ends with the object that says why.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    closing::usage_json,
    members::each_member,
    usage::{Usage, count},
};

/// What one object of such an answer says.
#[derive(Default)]
struct Native<'a> {
    content: Option<&'a RawValue>,
    index: Option<u64>,
    /// It is the last one, or the whole.
    ends: bool,
    /// The limit ended it.
    by_limit: bool,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// The data of an event, or a whole answer, as a text completion has it. What is no such object, an error for one, stays
/// as it is. `created` is in seconds since 1970.
pub fn infill_as_completion(data: &Bytes, created: i64) -> Bytes {
    let told = std::str::from_utf8(data).ok().and_then(|json| Native::read(json)?.told(created));
    told.map_or_else(|| data.clone(), Bytes::from)
}

impl<'a> Native<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut found = Self::default();
        each_member(json, |key, value| {
            let text = value.get();
            match key.as_ref() {
                "content" => found.content = Some(value).filter(|_| text.starts_with('"')),
                "index" => found.index = count(text),
                "stop" => found.ends = text == "true",
                "stop_type" => found.by_limit |= text == "\"limit\"",
                // Of versions before `stop_type`.
                "stopped_limit" => found.by_limit |= text == "true",
                "tokens_evaluated" => found.prompt_tokens = count(text),
                "tokens_predicted" => found.completion_tokens = count(text),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        Some(found)
    }

    fn told(&self, created: i64) -> Option<String> {
        let text = self.content?.get();
        let index = self.index.unwrap_or(0);
        let (reason, usage) = if self.ends {
            let counts = Usage {
                prompt_tokens: self.prompt_tokens,
                completion_tokens: self.completion_tokens,
                ..Usage::default()
            };
            let is_counted = counts.prompt_tokens.is_some() && counts.completion_tokens.is_some();
            let usage = if is_counted { format!(",\"usage\":{}", usage_json(&counts, true)) } else { String::new() };
            (if self.by_limit { "\"length\"" } else { "\"stop\"" }, usage)
        } else {
            ("null", String::new())
        };
        Some(format!(
            "{{\"object\":\"text_completion\",\"created\":{created},\"choices\":[{{\"index\":{index},\"text\":{text},\
             \"logprobs\":null,\"finish_reason\":{reason}}}]{usage}}}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkFacts, read_answer};

    fn told(json: &str) -> String {
        let told = infill_as_completion(&Bytes::copy_from_slice(json.as_bytes()), 7);
        String::from_utf8(told.to_vec()).unwrap()
    }

    #[test]
    fn a_whole_answer_is_a_completion() {
        let answer = r#"{"index":0,"content":"a\u00e9","tokens":[],"stop":true,"model":"x","tokens_predicted":2,
            "tokens_evaluated":5,"stop_type":"eos","stopping_word":"","timings":{"stop":1}}"#;
        let expected = r#"{"object":"text_completion","created":7,"choices":[{"index":0,"text":"a\u00e9","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
        assert_eq!(told(answer), expected);
        let read = read_answer(&told(answer).into(), "i", "m").unwrap();
        assert_eq!(read.usage, Some(Usage::of(5, 2)));
        for limit in [r#""stop_type":"limit""#, r#""stopped_limit":true"#] {
            let cut = told(&format!(r#"{{"content":"a","stop":true,{limit}}}"#));
            assert!(cut.contains("\"finish_reason\":\"length\"") && !cut.contains("usage"), "{cut}");
        }
    }

    #[test]
    fn a_stream_is_one_of_chunks() {
        let piece = told(r#"{"index":1,"content":"ab","stop":false,"tokens_predicted":1,"tokens_evaluated":5}"#);
        let facts = ChunkFacts::of(piece.as_bytes()).unwrap();
        assert_eq!((facts.deltas, facts.text_bytes, facts.ends, facts.has_usage), (1, 2, 0, false));
        assert!(piece.contains("\"index\":1"), "{piece}");
        let last = told(r#"{"content":"","stop":true,"stop_type":"word","tokens_predicted":3,"tokens_evaluated":5}"#);
        let facts = ChunkFacts::of(last.as_bytes()).unwrap();
        assert_eq!((facts.deltas, facts.ends, facts.usage), (0, 1, Some(Usage::of(5, 3))));
    }

    #[test]
    fn what_is_none_stays_as_it_is() {
        for other in [r#"{"error":{"code":501,"message":"no"}}"#, r#"{"content":7}"#, "[]", "[DONE]", "{", "\u{e9}"] {
            assert_eq!(told(other), other);
        }
        let choices = r#"{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}"#;
        assert_eq!(told(choices), choices, "a proxy that tells it as a completion already");
    }
}
