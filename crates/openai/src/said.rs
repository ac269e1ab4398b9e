//! Holds: how much text an answer says, for answers whose server does not count.
//!
//! Bytes of the text as its reader gets it: UTF-8, without JSON's escapes and quotes. Nothing is decoded or copied.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::members::{each_item, each_member};

/// How deep parts of a content lie within each other at most: a list of parts, a part, a list in it, its part, a text.
const MAX_PART_DEPTH: u32 = 5;

/// What a delta or a message says, member by member. Tool calls are counted apart, as they know their calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    bytes: u64,
    /// Some servers send the same reasoning under both of its names.
    reasoning: u64,
    /// Something was produced, be it no text.
    pub(crate) content: bool,
}

impl Said {
    /// Takes in a member.
    pub(crate) fn member(&mut self, key: &str, value: &RawValue) {
        let json = value.get();
        match key {
            "content" | "refusal" => self.bytes = self.bytes.saturating_add(within(json, 0)),
            "reasoning" | "reasoning_content" => self.reasoning = self.reasoning.max(within(json, 0)),
            "function_call" => self.bytes = self.bytes.saturating_add(call_bytes(json)),
            "audio" => self.bytes = self.bytes.saturating_add(member_bytes(json, "transcript")),
            "tool_calls" => {}
            _ => return,
        }
        self.content |= is_filled(json);
    }

    /// Adds what was counted apart.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Bytes of text in all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.reasoning)
    }
}

/// Whether a member holds anything.
pub(crate) fn is_filled(json: &str) -> bool {
    !matches!(json, "null" | "\"\"" | "[]" | "{}")
}

/// Bytes of text in a whole answer, whatever its server counted.
pub fn answer_bytes(body: &[u8]) -> u64 {
    let mut sum = 0;
    let text = std::str::from_utf8(body).unwrap_or_default();
    // What is no answer says nothing.
    let _read = each_member(text, |key, value| {
        if key == "choices" {
            sum = choices_bytes(value.get());
        }
        ControlFlow::Continue(())
    });
    sum
}

/// Bytes of text in the `choices` of a whole answer.
pub(crate) fn choices_bytes(json: &str) -> u64 {
    let mut sum = 0_u64;
    // What is no list of choices says nothing; the answer's reader judges it.
    let _listed = each_item(json, |choice: &RawValue| {
        let _listed = each_member(choice.get(), |key, value| {
            sum = sum.saturating_add(match key.as_ref() {
                "message" | "delta" => message_bytes(value.get()),
                "text" => string_bytes(value.get()),
                _ => 0,
            });
            ControlFlow::Continue(())
        });
    });
    sum
}

fn message_bytes(json: &str) -> u64 {
    let mut said = Said::default();
    let mut calls = 0_u64;
    let _listed = each_member(json, |key, value| {
        said.member(&key, value);
        if key == "tool_calls" {
            calls = calls.saturating_add(tool_calls_bytes(value.get()));
        }
        ControlFlow::Continue(())
    });
    said.bytes().saturating_add(calls)
}

/// Names and arguments of a list of tool calls.
fn tool_calls_bytes(json: &str) -> u64 {
    let mut sum = 0_u64;
    let _listed = each_item(json, |call: &RawValue| sum = sum.saturating_add(tool_call_bytes(call.get())));
    sum
}

fn tool_call_bytes(json: &str) -> u64 {
    let mut sum = 0_u64;
    let _listed = each_member(json, |key, value| {
        if matches!(key.as_ref(), "function" | "custom") {
            sum = sum.saturating_add(call_bytes(value.get()));
        }
        ControlFlow::Continue(())
    });
    sum
}

/// Name and arguments of a `function_call`, or of a call's `function` or `custom`.
pub(crate) fn call_bytes(json: &str) -> u64 {
    let mut sum = 0_u64;
    let _listed = each_member(json, |key, value| {
        sum = sum.saturating_add(match key.as_ref() {
            "name" => string_bytes(value.get()),
            "arguments" | "input" => argument_bytes(value.get()),
            _ => 0,
        });
        ControlFlow::Continue(())
    });
    sum
}

/// Arguments are a text; some servers write the object itself.
pub(crate) fn argument_bytes(json: &str) -> u64 {
    if json.starts_with(['{', '[']) { json.len() as u64 } else { string_bytes(json) }
}

fn member_bytes(json: &str, name: &str) -> u64 {
    let mut sum = 0;
    let _listed = each_member(json, |key, value| {
        if key == name {
            sum = string_bytes(value.get());
        }
        ControlFlow::Continue(())
    });
    sum
}

/// A text, or the texts of its parts.
fn within(json: &str, depth: u32) -> u64 {
    let mut sum = 0_u64;
    if depth == MAX_PART_DEPTH {
        return 0;
    }
    match json.as_bytes().first() {
        Some(b'"') => return string_bytes(json),
        Some(b'[') => {
            let _listed = each_item(json, |part: &RawValue| sum = sum.saturating_add(within(part.get(), depth + 1)));
        }
        Some(b'{') => {
            let _listed = each_member(json, |key, value| {
                if matches!(key.as_ref(), "text" | "thinking" | "refusal" | "reasoning" | "content") {
                    sum = sum.saturating_add(within(value.get(), depth + 1));
                }
                ControlFlow::Continue(())
            });
        }
        _ => {}
    }
    sum
}

/// Bytes of the string that this valid JSON is; 0 for what is none.
pub(crate) fn string_bytes(json: &str) -> u64 {
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map_or(0, inner_bytes)
}

/// Bytes of the string that has this between its quotes.
pub(crate) fn inner_bytes(inner: &str) -> u64 {
    let bytes = inner.as_bytes();
    let (mut at, mut shorter) = (0, 0);
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += step;
        let (spelled, said) = match bytes.get(at + 1) {
            Some(b'u') => (6, inner.get(at + 2..at + 6).map_or(1, escaped_bytes)),
            _ => (2, 1),
        };
        shorter += spelled - said;
        at += spelled;
    }
    inner.len().saturating_sub(shorter) as u64
}

/// Bytes of the character with this number. Each half of a pair counts for half of it, as halves may come apart.
fn escaped_bytes(hex: &str) -> usize {
    match u32::from_str_radix(hex, 16) {
        Ok(0..=0x7f) | Err(_) => 1,
        Ok(0x80..=0x7ff | 0xd800..=0xdfff) => 2,
        Ok(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_measured_as_they_are_read() {
        for text in ["", "a", "é", "\u{1f600}", "a\"b\\c\n\u{7}", "größe \u{2028}"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(string_bytes(&json), text.len() as u64, "{json}");
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            assert_eq!(string_bytes(&format!("\"{escaped}\"")), text.len() as u64, "{escaped}");
        }
        for other in ["null", "1", "[]", "{}", "\""] {
            assert_eq!(string_bytes(other), 0, "{other}");
        }
    }

    #[track_caller]
    fn check(choice: &str, bytes: u64) {
        assert_eq!(choices_bytes(&format!("[{choice}]")), bytes, "{choice}");
    }

    #[test]
    fn every_kind_of_text_counts_once() {
        check(r#"{"message":{"role":"assistant","content":"hello"},"logprobs":{"content":[{"token":"hello"}]}}"#, 5);
        check(r#"{"message":{"content":null,"refusal":"no"}},{"text":"ab"}"#, 4);
        check(r#"{"message":{"content":"a","reasoning":"think","reasoning_content":"think"}}"#, 6);
        check(
            r#"{"message":{"tool_calls":[{"id":"i","function":{"name":"f","arguments":"{\"a\":1}"}},
                {"custom":{"name":"g","input":"xy"}},{"function":{"name":"h","arguments":{"a":1}}}]}}"#,
            8 + 3 + 8,
        );
        check(r#"{"message":{"function_call":{"name":"f","arguments":"{}"}}}"#, 3);
        check(r#"{"message":{"audio":{"id":"x","data":"AAAA","transcript":"hi"}}}"#, 2);
        check(
            r#"{"message":{"content":[{"type":"text","text":"ab"},{"type":"thinking","thinking":[{"text":"c"}]},"d"]}}"#,
            4,
        );
        check(r#"{"message":[]},1,{"text":7}"#, 0);
        assert_eq!(choices_bytes("{}"), 0);
        let deep = format!("{{\"message\":{{\"content\":{}\"a\"{}}}}}", "[".repeat(100), "]".repeat(100));
        check(&deep, 0);
    }
}
