//! Holds: the bodies and stream events of the simulated model.
//!
//! Everything follows from the request and the script; no clock and no randomness.

use batchin_openai::{Endpoint, Peek};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::behaviour::{Answer, End, UsageMode};

/// Numbers of a simulated embedding.
const EMBEDDING: [f32; 8] = [0.5, -0.25, 0.125, 0.0, 1.0, -1.0, 0.75, -0.5];

const WORDS: [&str; 8] = ["Lorem ", "ipsum ", "dolor ", "sit ", "amet, ", "consetetur ", "sadipscing ", "elitr. "];

/// The text of the `index`th token of every answer.
pub fn token_text(index: u32) -> &'static str {
    WORDS[index as usize % WORDS.len()]
}

/// Prompt tokens that the simulated server counts: the words in the messages, prompt or input, or the token ids sent.
pub fn prompt_tokens(body: &[u8]) -> u64 {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return 0 };
    let messages = body["messages"].as_array().into_iter().flatten().map(|message| words(&message["content"]));
    messages.sum::<u64>() + words(&body["prompt"]) + words(&body["input"]) + words(&body["suffix"])
}

fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(part) => part.get("text").map_or(0, words),
        _ => 0,
    }
}

/// A request as the simulated model sees it.
pub(crate) struct Job<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) peek: &'a Peek,
    pub(crate) body: &'a [u8],
    pub(crate) answer: &'a Answer,
}

impl Job<'_> {
    fn tokens(&self) -> u32 {
        let limit =
            self.peek.max_output.filter(|_| self.peek.max_output_stated || self.endpoint == Endpoint::Completions);
        self.answer.tokens.min(limit.unwrap_or(u32::MAX))
    }

    fn finish_reason(&self) -> &'static str {
        if self.tokens() < self.answer.tokens { "length" } else { "stop" }
    }

    fn usage(&self) -> Value {
        let prompt = prompt_tokens(self.body);
        let completion = u64::from(self.tokens()) * u64::from(self.peek.choices);
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }

    /// The body of an answer that is not streamed.
    pub(crate) fn whole(&self) -> Bytes {
        let usage = if self.answer.usage == UsageMode::Never { Value::Null } else { self.usage() };
        let model = &self.peek.model;
        let body = match self.endpoint {
            Endpoint::Embeddings => {
                let data: Vec<Value> = (0..self.peek.bound.items)
                    .map(|index| json!({"object": "embedding", "index": index, "embedding": EMBEDDING}))
                    .collect();
                let prompt = prompt_tokens(self.body);
                let usage =
                    if usage.is_null() { usage } else { json!({"prompt_tokens": prompt, "total_tokens": prompt}) };
                json!({"object": "list", "data": data, "model": model, "usage": usage})
            }
            Endpoint::Chat | Endpoint::Completions => {
                let text: String = (0..self.tokens()).map(token_text).collect();
                let choices: Vec<Value> = (0..self.peek.choices).map(|index| self.choice(index, &text)).collect();
                let object = if self.endpoint == Endpoint::Chat { "chat.completion" } else { "text_completion" };
                json!({"id": "sim-1", "object": object, "created": 1_700_000_000, "model": model, "choices": choices,
                       "usage": usage})
            }
        };
        body.to_string().into()
    }

    fn choice(&self, index: u32, text: &str) -> Value {
        let reason = self.finish_reason();
        if self.endpoint == Endpoint::Chat {
            let message = json!({"role": "assistant", "content": text});
            return json!({"index": index, "message": message, "logprobs": null, "finish_reason": reason});
        }
        json!({"index": index, "text": text, "logprobs": null, "finish_reason": reason})
    }

    /// The events of a stream up to where its end begins, and the events of that end.
    pub(crate) fn events(&self) -> Events {
        let mut deltas = Vec::new();
        if self.endpoint == Endpoint::Chat {
            deltas.push(self.chunk(&self.choices(|_| json!({"role": "assistant", "content": ""})), &Value::Null));
        }
        for token in 0..self.tokens() {
            deltas.push(self.chunk(&self.choices(|_| json!({"content": token_text(token)})), &Value::Null));
        }
        Events { deltas, end: self.end_events() }
    }

    fn end_events(&self) -> Vec<Bytes> {
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        match &self.answer.end {
            End::Done => [self.finish_events(), vec![done]].concat(),
            End::WithoutDone => self.finish_events(),
            End::ErrorEvent(data) => vec![batchin_openai::sse::frame(data.as_bytes()), done],
            End::Silent | End::Cut | End::Hang => Vec::new(),
        }
    }

    fn finish_events(&self) -> Vec<Bytes> {
        let mode = self.answer.usage;
        let on_finish = if mode == UsageMode::OnLastChunk { self.usage() } else { Value::Null };
        let finish: Vec<Value> = (0..self.peek.choices)
            .map(|index| {
                let reason = self.finish_reason();
                match self.endpoint {
                    Endpoint::Chat => json!({"index": index, "delta": {}, "finish_reason": reason}),
                    _ => json!({"index": index, "text": "", "finish_reason": reason}),
                }
            })
            .collect();
        let mut events = vec![self.chunk(&Value::from(finish), &on_finish)];
        let asked = matches!(mode, UsageMode::AsAsked | UsageMode::ZerosThenLast) && self.peek.include_usage;
        if asked {
            events.push(self.chunk(&json!([]), &self.usage()));
        }
        events
    }

    fn choices(&self, delta: impl Fn(u32) -> Value) -> Value {
        let choices = (0..self.peek.choices).map(|index| match self.endpoint {
            Endpoint::Chat => json!({"index": index, "delta": delta(index), "finish_reason": null}),
            _ => json!({"index": index, "text": delta(index)["content"], "finish_reason": null}),
        });
        choices.collect()
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> Bytes {
        let object = if self.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = json!({"id": "sim-1", "object": object, "created": 1_700_000_000, "model": self.peek.model,
                               "choices": choices});
        if !usage.is_null() {
            chunk["usage"] = usage.clone();
        } else if self.answer.usage == UsageMode::ZerosThenLast {
            chunk["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        }
        batchin_openai::sse::frame(chunk.to_string().as_bytes())
    }
}

/// The events of a stream.
pub(crate) struct Events {
    pub(crate) deltas: Vec<Bytes>,
    pub(crate) end: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use batchin_openai::{peek, usage_of};

    use super::*;

    fn job(endpoint: Endpoint, body: &str, tokens: u32) -> (Value, Vec<String>) {
        let peeked = peek(endpoint, body.as_bytes()).unwrap();
        let answer = Answer::of(tokens);
        let job = Job { endpoint, peek: &peeked, body: body.as_bytes(), answer: &answer };
        let events = job.events();
        let events = events.deltas.iter().chain(&events.end).map(|event| String::from_utf8(event.to_vec()).unwrap());
        (serde_json::from_slice(&job.whole()).unwrap(), events.collect())
    }

    #[test]
    fn counts_follow_from_the_request() {
        let chat = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a b"}]},
            {"role":"user","content":"c"}],"max_tokens":2,"n":2,"stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(prompt_tokens(chat.as_bytes()), 3);
        let (whole, events) = job(Endpoint::Chat, chat, 9);
        assert_eq!(whole["usage"], json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}));
        assert_eq!(whole["choices"][1]["finish_reason"], "length");
        assert_eq!(events.len(), 6, "role, two deltas, finish, usage, done");
        let usage = events[4].strip_prefix("data: ").and_then(|event| usage_of(event.as_bytes()));
        assert_eq!(usage.map(|usage| usage.completion_tokens), Some(4));
        assert_eq!(prompt_tokens(br#"{"input":[[1,2],[3]]}"#), 3);
    }

    #[test]
    fn default_answer_is_about_a_kilobyte() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#;
        let (whole, _) = job(Endpoint::Chat, body, crate::behaviour::DEFAULT_TOKENS);
        let bytes = whole.to_string().len();
        assert!((900..1150).contains(&bytes), "{bytes}");
    }
}
