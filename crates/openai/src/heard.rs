//! Holds: what an answer says, whole or in chunks, for whoever tells it on in another protocol.
//!
//! It takes every shape that servers use, and what cannot be read is as if it had not been said: whether an answer is one
//! was judged when it came.

use std::{borrow::Cow, ops::ControlFlow};

use serde_json::value::RawValue;

use crate::{
    blank::is_reason,
    ending::Ending,
    members::{each_item, each_member},
    usage::{Usage, count, parse_usage},
};

/// How deep parts of a content lie within each other at most, as in what is counted of them.
const MAX_PART_DEPTH: u32 = 5;

/// What a chunk of a stream, or a whole answer, says.
#[derive(Debug, Default)]
pub struct Heard<'a> {
    /// In the order in which they stand in it.
    pub choices: Vec<HeardChoice<'a>>,
    /// The counts that it tells.
    pub usage: Option<Usage>,
}

/// What one choice says.
#[derive(Debug, Default)]
pub struct HeardChoice<'a> {
    /// Its number, from 0.
    pub index: u64,
    /// Text of the answer.
    pub content: Cow<'a, str>,
    /// Text that was thought and is no part of the answer.
    pub reasoning: Cow<'a, str>,
    /// Text of a refusal.
    pub refusal: Cow<'a, str>,
    /// Tool calls, or parts of them.
    pub calls: Vec<HeardCall<'a>>,
    /// Why it ends, in the chunk in which it does.
    pub finish: Option<Finish>,
    /// The stop sequence that ended it, where its server says so.
    pub stopped_by: Option<Cow<'a, str>>,
    /// Log probabilities of its content: a JSON list of tokens.
    pub logprobs: Option<&'a RawValue>,
}

/// A tool call, or a part of one.
#[derive(Debug, Default)]
pub struct HeardCall<'a> {
    /// Its number within the choice, from 0; in whole answers its place.
    pub index: u64,
    /// In the part in which it begins.
    pub id: Option<Cow<'a, str>>,
    /// In the part in which it begins.
    pub name: Option<Cow<'a, str>>,
    /// Arguments as JSON text, or the input of a custom tool; a piece of them in a stream.
    pub arguments: Cow<'a, str>,
    /// Whether it calls a custom tool, whose input is plain text.
    pub is_custom: bool,
}

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model had said all, or met a stop sequence.
    Stop,
    /// It met the limit of its tokens.
    Length,
    /// It calls tools.
    ToolCalls,
    /// Its content was filtered.
    ContentFilter,
}

impl From<Ending> for Finish {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Length => Self::Length,
            Ending::ToolCalls | Ending::FunctionCall => Self::ToolCalls,
            Ending::ContentFilter => Self::ContentFilter,
            // Answers that failed were judged when they came.
            Ending::Stop | Ending::Failed => Self::Stop,
        }
    }
}

/// Reads the data of a chunk, or a whole answer. What is no JSON object says nothing.
pub fn hear(json: &[u8]) -> Heard<'_> {
    let mut heard = Heard::default();
    let Ok(text) = std::str::from_utf8(json) else { return heard };
    let _listed = each_member(text, |key, value| {
        match key.as_ref() {
            "choices" => {
                let _listed = each_item(value.get(), |choice: &RawValue| heard.choices.push(hear_choice(choice.get())));
            }
            "usage" => heard.usage = parse_usage(value),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    heard
}

fn hear_choice(json: &str) -> HeardChoice<'_> {
    let mut choice = HeardChoice::default();
    let _listed = each_member(json, |key, value| {
        match key.as_ref() {
            "index" => choice.index = count(value.get()).unwrap_or(0),
            "delta" | "message" => choice.take_message(value.get()),
            // Of a text completion.
            "text" => choice.take_content(value.get(), 0),
            "finish_reason" if is_reason(value.get()) => {
                choice.finish = Some(Ending::of(value.get()).into());
            }
            // vLLM's name, and SGLang's. A number is a token, which no client asked for.
            "stop_reason" | "matched_stop" => choice.stopped_by = text_of(value.get()),
            "logprobs" => choice.logprobs = content_of(value.get()),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    choice
}

impl<'a> HeardChoice<'a> {
    fn take_message(&mut self, json: &'a str) {
        let _listed = each_member(json, |key, value| {
            let json = value.get();
            match key.as_ref() {
                "content" => self.take_content(json, 0),
                // Some servers say it under both names.
                "reasoning" | "reasoning_content" => {
                    if let Some(text) = text_of(json).filter(|text| text.len() > self.reasoning.len()) {
                        self.reasoning = text;
                    }
                }
                "refusal" => self.refusal = text_of(json).unwrap_or_default(),
                "tool_calls" => {
                    let _listed = each_item(json, |call: &RawValue| {
                        let at = self.calls.len() as u64;
                        self.calls.push(hear_call(call.get(), at));
                    });
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }

    /// A text, or a list of parts.
    fn take_content(&mut self, json: &'a str, depth: u32) {
        if let Some(text) = text_of(json) {
            return join(&mut self.content, text);
        }
        if depth == MAX_PART_DEPTH {
            return;
        }
        let _listed = each_item(json, |part: &'a RawValue| self.take_part(part.get(), depth + 1));
    }

    fn take_part(&mut self, json: &'a str, depth: u32) {
        if let Some(text) = text_of(json) {
            return join(&mut self.content, text);
        }
        let _listed = each_member(json, |key, value| {
            match key.as_ref() {
                "text" => self.take_content(value.get(), depth),
                "thinking" => {
                    let mut thought = HeardChoice::default();
                    thought.take_content(value.get(), depth);
                    join(&mut self.reasoning, thought.content);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }
}

fn hear_call(json: &str, at: u64) -> HeardCall<'_> {
    let mut call = HeardCall { index: at, ..HeardCall::default() };
    let _listed = each_member(json, |key, value| {
        match key.as_ref() {
            "index" => call.index = count(value.get()).unwrap_or(at),
            "id" => call.id = said(value.get()),
            "function" | "custom" => {
                call.is_custom = key == "custom";
                let _listed = each_member(value.get(), |key, value| {
                    match key.as_ref() {
                        "name" => call.name = said(value.get()),
                        "arguments" | "input" => call.arguments = arguments_of(value.get()),
                        _ => {}
                    }
                    ControlFlow::Continue(())
                });
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    call
}

/// Arguments are a text; some servers write the object itself.
fn arguments_of(json: &str) -> Cow<'_, str> {
    if json.starts_with(['{', '[']) { Cow::Borrowed(json) } else { text_of(json).unwrap_or_default() }
}

fn content_of(json: &str) -> Option<&RawValue> {
    let mut content = None;
    let _listed = each_member(json, |key, value| {
        if key == "content" && value.get().starts_with('[') {
            content = Some(value);
        }
        ControlFlow::Continue(())
    });
    content
}

/// The text that this valid JSON is, if it is one.
pub(crate) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    // Half of a pair, which JSON can spell and no text can hold, stands for a character that cannot be shown.
    serde_json::from_str(json).map(Cow::Owned).ok().or_else(|| lossy(json).map(Cow::Owned))
}

/// A text with escapes that are no characters.
fn lossy(json: &str) -> Option<String> {
    let bytes: serde_bytes_lossy::Text = serde_json::from_str(json).ok()?;
    Some(bytes.0)
}

/// serde_json gives strings that hold half a pair to those alone who ask for bytes.
mod serde_bytes_lossy {
    use std::fmt;

    use serde::{
        Deserialize, Deserializer,
        de::{Error, Visitor},
    };

    pub(super) struct Text(pub(super) String);

    impl<'a> Deserialize<'a> for Text {
        fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_bytes(Lossy)
        }
    }

    struct Lossy;

    impl Visitor<'_> for Lossy {
        type Value = Text;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
            Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
        }
    }
}

/// A text that is not empty.
fn said(json: &str) -> Option<Cow<'_, str>> {
    text_of(json).filter(|text| !text.is_empty())
}

fn join<'a>(text: &mut Cow<'a, str>, more: Cow<'a, str>) {
    if text.is_empty() {
        *text = more;
    } else {
        text.to_mut().push_str(&more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_and_a_whole_answer_say_the_same() {
        let message = r#"{"role":"assistant","content":"h\u00e9","reasoning_content":"think","reasoning":"think","refusal":null,"tool_calls":[{"index":3,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"","custom":{"name":"g","input":"x"}},{"function":{"arguments":{"b":2}}}]}"#;
        for member in ["delta", "message"] {
            let json = format!(
                r#"{{"id":"x","choices":[{{"index":2,"{member}":{message},"finish_reason":"function_call","stop_reason":"END","logprobs":{{"content":[{{"token":"h"}}]}}}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
            );
            let heard = hear(json.as_bytes());
            let [choice] = &heard.choices[..] else { panic!("{heard:?}") };
            assert_eq!((choice.index, choice.content.as_ref(), choice.reasoning.as_ref()), (2, "h\u{e9}", "think"));
            assert_eq!((choice.finish, choice.stopped_by.as_deref()), (Some(Finish::ToolCalls), Some("END")));
            assert_eq!(choice.logprobs.map(RawValue::get), Some(r#"[{"token":"h"}]"#));
            let calls: Vec<_> = choice
                .calls
                .iter()
                .map(|call| (call.index, call.id.as_deref(), call.name.as_deref(), call.arguments.as_ref()))
                .collect();
            let expected =
                [(3, Some("c1"), Some("f"), r#"{"a":1}"#), (1, None, Some("g"), "x"), (2, None, None, r#"{"b":2}"#)];
            assert_eq!(calls, expected);
            assert_eq!(choice.calls.iter().map(|call| call.is_custom).collect::<Vec<_>>(), [false, true, false]);
            assert_eq!(heard.usage, Some(Usage::of(3, 2)));
        }
    }

    #[test]
    fn parts_are_joined_and_thoughts_kept_apart() {
        let json = br#"{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"},{"text":"b"}]},{"type":"text","text":"c"},"d"]},"finish_reason":"null"}]}"#;
        let heard = hear(json);
        assert_eq!((heard.choices[0].reasoning.as_ref(), heard.choices[0].content.as_ref()), ("ab", "cd"));
        assert_eq!(heard.choices[0].finish, None);
    }

    #[test]
    fn half_a_pair_is_a_character_that_cannot_be_shown() {
        let heard = hear(br#"{"choices":[{"delta":{"content":"a\ud83d"}}]}"#);
        assert_eq!(heard.choices[0].content, "a\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for json in
            [&b"[]"[..], b"\xff", b"{", b"{\"choices\":7}", br#"{"choices":[1,{"delta":[]},{"delta":{"content":{}}}]}"#]
        {
            let heard = hear(json);
            assert!(
                heard.choices.iter().all(|choice| choice.content.is_empty() && choice.calls.is_empty()),
                "{heard:?}"
            );
        }
        let deep = format!(r#"{{"choices":[{{"delta":{{"content":{}"a"{}}}}}]}}"#, "[".repeat(60), "]".repeat(60));
        assert!(hear(deep.as_bytes()).choices[0].content.is_empty());
    }

    #[test]
    fn odd_reasons_are_told_as_openai_s() {
        for (reason, finish) in [
            ("stop", Finish::Stop),
            ("eos", Finish::Stop),
            ("abort", Finish::Stop),
            ("length", Finish::Length),
            ("repetition", Finish::Length),
            ("content_filter", Finish::ContentFilter),
        ] {
            let json = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
            assert_eq!(hear(json.as_bytes()).choices[0].finish, Some(finish), "{reason}");
        }
    }
}
