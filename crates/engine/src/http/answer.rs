//! Holds: the JSON of answers, whole and in pieces. Pure.

use serde_json::{Map, Value, json};

use crate::{
    generate::{Finish, TokenLogprob, Usage},
    text::tool_calls::{Piece, ToolCallParser},
};

/// Which of OpenAI's two objects an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat { tools: bool },
    Completion,
}

/// What is the same in all pieces of an answer.
pub(super) struct Frame {
    shape: Shape,
    id: String,
    created: i64,
    model: String,
    include_usage: bool,
    /// Choices of each prompt.
    n: usize,
    /// The prompts' tokens, where every chunk is to say what was counted so far.
    counted: Option<usize>,
    /// The beginning of every chunk, as far as its choice's index.
    head: String,
}

/// Where a chunk stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) choice: usize,
    /// Characters of its choice before it.
    pub(super) offset: usize,
    /// Tokens that all choices have so far.
    pub(super) tokens: usize,
}

/// A finished choice.
pub(super) struct Done {
    pub(super) choice: usize,
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
}

/// What a chunk says about its choice.
pub(super) enum Delta<'a> {
    /// The speaker, and no text yet.
    Role,
    Text(&'a str),
    /// The call's place among the calls of its choice, its name and its arguments.
    Call {
        at: usize,
        name: &'a str,
        arguments: &'a str,
    },
    /// The end.
    Finish(&'static str),
}

impl Frame {
    pub(super) fn new(shape: Shape, model: &str, include_usage: bool, n: usize) -> Self {
        let (prefix, object) = match shape {
            Shape::Chat { .. } => ("chatcmpl", "chat.completion.chunk"),
            Shape::Completion => ("cmpl", "text_completion"),
        };
        let id = format!("{prefix}_{:032x}", rand::random::<u128>());
        let created = jiff::Timestamp::now().as_second();
        let model_json = Value::from(model);
        let head = format!(
            r#"{{"id":"{id}","object":"{object}","created":{created},"model":{model_json},"choices":[{{"index":"#
        );
        Self { shape, id, created, model: model.to_owned(), include_usage, n, counted: None, head }
    }

    /// The same, but each chunk tells what was counted so far of prompts with so many tokens.
    pub(super) fn counting(self, prompt: usize) -> Self {
        Self { counted: Some(prompt), ..self }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The whole answer.
    pub(super) fn whole(&self, done: Vec<Done>) -> Value {
        let usage = self.total(done.iter().map(|done| (done.choice, done.usage)));
        let choices: Vec<Value> = done.into_iter().map(|done| self.whole_choice(done)).collect();
        let object = match self.shape {
            Shape::Chat { .. } => "chat.completion",
            Shape::Completion => "text_completion",
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": choices, "usage": usage,
        })
    }

    fn whole_choice(&self, done: Done) -> Value {
        let logprobs = logprobs_json(self.shape, &done.logprobs, 0);
        match self.shape {
            Shape::Completion => json!({
                "index": done.choice, "text": done.text, "logprobs": logprobs,
                "finish_reason": finish_reason(done.finish, false),
            }),
            Shape::Chat { tools } => {
                let (message, called) = message(done.text, tools);
                json!({
                    "index": done.choice, "message": message, "logprobs": logprobs,
                    "finish_reason": finish_reason(done.finish, called),
                })
            }
        }
    }

    /// Writes one chunk as a server-sent event.
    pub(super) fn chunk(&self, out: &mut String, place: Place, delta: &Delta<'_>, logprobs: &[TokenLogprob]) {
        out.push_str("data: ");
        out.push_str(&self.head);
        out.push_str(itoa::Buffer::new().format(place.choice));
        match (self.shape, delta) {
            (Shape::Chat { .. }, Delta::Role) => {
                out.push_str(r#","delta":{"role":"assistant","content":"","refusal":null}"#);
            }
            (Shape::Chat { .. }, Delta::Text(text)) => {
                out.push_str(r#","delta":{"content":"#);
                push_json(out, text);
                out.push('}');
            }
            (Shape::Chat { .. }, Delta::Call { at, name, arguments }) => {
                let function = json!({"name": name, "arguments": arguments});
                let call = json!({"index": at, "id": call_id(), "type": "function", "function": function});
                out.push_str(&format!(r#","delta":{{"tool_calls":[{call}]}}"#));
            }
            (Shape::Chat { .. }, Delta::Finish(_)) => out.push_str(r#","delta":{}"#),
            (Shape::Completion, delta) => {
                out.push_str(r#","text":"#);
                push_json(out, if let Delta::Text(text) = delta { text } else { "" });
            }
        }
        out.push_str(r#","logprobs":"#);
        match logprobs {
            [] => out.push_str("null"),
            some => out.push_str(&logprobs_json(self.shape, some, place.offset).to_string()),
        }
        out.push_str(r#","finish_reason":"#);
        match delta {
            Delta::Finish(reason) => push_json(out, reason),
            Delta::Role | Delta::Text(_) | Delta::Call { .. } => out.push_str("null"),
        }
        match self.counted {
            Some(prompt) => {
                out.push_str("}],\"usage\":");
                out.push_str(&usage_json(prompt, 0, place.tokens).to_string());
                out.push_str("}\n\n");
            }
            None => out.push_str(if self.include_usage { "}],\"usage\":null}\n\n" } else { "}]}\n\n" }),
        }
    }

    /// Writes what ends a stream: usage if it was asked for, and the end mark.
    pub(super) fn end(&self, out: &mut String, usages: &[(usize, Usage)]) {
        if self.include_usage {
            let usage = self.total(usages.iter().copied());
            let object = match self.shape {
                Shape::Chat { .. } => "chat.completion.chunk",
                Shape::Completion => "text_completion",
            };
            let chunk = json!({
                "id": self.id, "object": object, "created": self.created, "model": self.model,
                "choices": [], "usage": usage,
            });
            out.push_str(&format!("data: {chunk}\n\n"));
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// Usage of all choices. A prompt counts once, however many answers it has.
    fn total(&self, usages: impl Iterator<Item = (usize, Usage)>) -> Value {
        let (mut prompt, mut cached, mut completion) = (0, 0, 0);
        for (choice, usage) in usages {
            completion += usage.completion;
            if choice % self.n == 0 {
                prompt += usage.prompt;
                cached += usage.cached;
            }
        }
        usage_json(prompt, cached, completion)
    }
}

fn usage_json(prompt: usize, cached: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

pub(super) fn finish_reason(finish: Finish, called: bool) -> &'static str {
    match finish {
        Finish::Stop if called => "tool_calls",
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn message(text: String, tools: bool) -> (Value, bool) {
    if !tools {
        return (json!({"role": "assistant", "content": text, "refusal": null}), false);
    }
    let mut parser = ToolCallParser::default();
    let mut pieces = parser.push(&text);
    pieces.extend(parser.finish());
    let (mut content, mut calls) = (String::new(), Vec::new());
    for piece in pieces {
        match piece {
            Piece::Text(text) => content.push_str(&text),
            Piece::Call { name, arguments } => {
                let function = json!({"name": name, "arguments": arguments});
                calls.push(json!({"id": call_id(), "type": "function", "function": function}));
            }
        }
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    let silent = content.is_empty() && !calls.is_empty();
    message.insert("content".to_owned(), if silent { Value::Null } else { content.into() });
    message.insert("refusal".to_owned(), Value::Null);
    let called = !calls.is_empty();
    if called {
        message.insert("tool_calls".to_owned(), calls.into());
    }
    (message.into(), called)
}

fn call_id() -> String {
    format!("call_{:016x}", rand::random::<u64>())
}

fn push_json(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

/// Characters that begin in these bytes, which may begin or end inside of one.
pub(super) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

/// `null`, the chat form or the older parallel lists, whose offsets are in characters of a text that has `offset` already.
fn logprobs_json(shape: Shape, logprobs: &[TokenLogprob], offset: usize) -> Value {
    if logprobs.is_empty() {
        return Value::Null;
    }
    match shape {
        Shape::Chat { .. } => {
            let entry = |bytes: &[u8], logprob: f32| json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes});
            let content: Vec<Value> = logprobs
                .iter()
                .map(|token| {
                    let mut value = entry(&token.bytes, token.logprob);
                    value["top_logprobs"] = token.top.iter().map(|(bytes, logprob)| entry(bytes, *logprob)).collect();
                    value
                })
                .collect();
            json!({"content": content, "refusal": null})
        }
        Shape::Completion => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let tops = logprobs.iter().map(|token| {
                token.top.iter().map(|(bytes, logprob)| (text(bytes), Value::from(*logprob))).collect::<Map<_, _>>()
            });
            let offsets = logprobs.iter().scan(offset, |at, token| {
                let here = *at;
                *at += characters(&token.bytes);
                Some(here)
            });
            json!({
                "tokens": logprobs.iter().map(|token| text(&token.bytes)).collect::<Vec<_>>(),
                "token_logprobs": logprobs.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                "top_logprobs": tops.collect::<Vec<_>>(),
                "text_offset": offsets.collect::<Vec<_>>(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(shape: Shape, delta: &Delta<'_>) -> Value {
        let mut out = String::new();
        let place = Place { choice: 3, ..Place::default() };
        Frame::new(shape, "m\"1", true, 1).chunk(&mut out, place, delta, &[]);
        serde_json::from_str(out.strip_prefix("data: ").unwrap()).unwrap()
    }

    #[test]
    fn chunks_are_valid_json_of_the_right_shape() {
        let chat = chunk(Shape::Chat { tools: false }, &Delta::Text("a\"\n日"));
        assert_eq!(
            chat["choices"][0],
            json!({"index": 3, "delta": {"content": "a\"\n日"}, "logprobs": null, "finish_reason": null})
        );
        assert_eq!((&chat["model"], &chat["usage"]), (&json!("m\"1"), &Value::Null));
        let end = chunk(Shape::Completion, &Delta::Finish("length"));
        assert_eq!(end["choices"][0], json!({"index": 3, "text": "", "logprobs": null, "finish_reason": "length"}));
        let call = chunk(Shape::Chat { tools: true }, &Delta::Call { at: 1, name: "f", arguments: "{}" });
        assert_eq!(call["choices"][0]["delta"]["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{}"}));
    }

    #[test]
    fn a_chunk_tells_what_was_counted_so_far() {
        let mut out = String::new();
        let place = Place { choice: 1, offset: 0, tokens: 7 };
        Frame::new(Shape::Completion, "m", true, 2).counting(5).chunk(&mut out, place, &Delta::Text("a"), &[]);
        let chunk: Value = serde_json::from_str(out.strip_prefix("data: ").unwrap()).unwrap();
        let usage = &chunk["usage"];
        assert_eq!(
            (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
            (&json!(5), &json!(7), &json!(12))
        );
    }

    #[test]
    fn offsets_count_characters() {
        let token = |text: &[u8]| TokenLogprob { bytes: text.to_vec(), logprob: -1.0, top: Vec::new() };
        let smile = "😀".as_bytes();
        let tokens = ["日本".as_bytes(), b"x", &smile[..2], &smile[2..], b"y"].map(token);
        let offsets = &logprobs_json(Shape::Completion, &tokens, 10)["text_offset"];
        assert_eq!(*offsets, json!([10, 12, 13, 14, 14]));
    }

    #[test]
    fn a_pure_call_has_no_content() {
        let (message, called) = message("<tool_call>{\"name\":\"f\"}</tool_call>".to_owned(), true);
        assert!(called && message["content"].is_null() && message.as_object().unwrap().contains_key("refusal"));
        assert_eq!(message["tool_calls"][0]["function"]["name"], "f");
    }
}
