//! Holds: the simulated model in the Responses and Messages protocols, as vLLM writes them. No model says any of it.

use batchin_domain::CallKind;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    answer::{Events, prompt_tokens, token_text},
    behaviour::{Answer, End, UsageMode},
};

/// A request in one of these protocols, and what is said to it.
pub(crate) struct Talk<'a> {
    call: CallKind,
    body: Value,
    prompt: u64,
    answer: &'a Answer,
}

/// What the script is looked up by.
pub(crate) fn model_of(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["model"].as_str().unwrap_or_default().to_owned()
}

impl<'a> Talk<'a> {
    pub(crate) fn new(call: CallKind, body: &[u8], answer: &'a Answer) -> Self {
        let prompt = prompt_tokens(body);
        Self { call, body: serde_json::from_slice(body).unwrap_or_default(), prompt, answer }
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.body["stream"] == true
    }

    fn limit(&self) -> u32 {
        let name = if self.call == CallKind::Responses { "max_output_tokens" } else { "max_tokens" };
        self.body[name].as_u64().and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX)
    }

    fn tokens(&self) -> u32 {
        self.answer.tokens.min(self.limit())
    }

    fn is_cut(&self) -> bool {
        self.tokens() < self.answer.tokens
    }

    fn text(&self) -> String {
        (0..self.tokens()).map(token_text).collect()
    }

    fn usage(&self) -> Value {
        let (input, output) = (self.prompt, self.tokens());
        match self.call {
            _ if self.answer.usage == UsageMode::Never => Value::Null,
            CallKind::Responses => json!({ "input_tokens": input,
                "input_tokens_details": { "cached_tokens": 0, "input_tokens_per_turn": [], "cached_tokens_per_turn": [] },
                "output_tokens": output,
                "output_tokens_details": { "reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": [] },
                "total_tokens": input + u64::from(output) }),
            _ => json!({ "input_tokens": input, "output_tokens": output,
                "cache_creation_input_tokens": null, "cache_read_input_tokens": null }),
        }
    }

    /// The body of an answer that is not streamed.
    pub(crate) fn whole(&self) -> Bytes {
        let whole = match self.call {
            CallKind::Responses => {
                self.response(self.ended(), json!([self.item("completed", &self.text())]), self.usage())
            }
            _ => self.message(json!([{ "type": "text", "text": self.text() }]), self.stop_reason(), self.usage()),
        };
        whole.to_string().into()
    }

    fn ended(&self) -> &'static str {
        if self.is_cut() { "incomplete" } else { "completed" }
    }

    fn stop_reason(&self) -> Value {
        if self.is_cut() { "max_tokens".into() } else { "end_turn".into() }
    }

    fn response(&self, status: &str, output: Value, usage: Value) -> Value {
        let why = if status == "incomplete" { json!({ "reason": "max_output_tokens" }) } else { Value::Null };
        json!({ "id": "resp_sim", "created_at": 1_700_000_000, "incomplete_details": why, "instructions": null,
            "metadata": null, "model": self.body["model"], "object": "response", "output": output,
            "parallel_tool_calls": true, "service_tier": "auto", "status": status, "store": self.body["store"],
            "usage": usage })
    }

    fn item(&self, status: &str, text: &str) -> Value {
        let content = if text.is_empty() { json!([]) } else { json!([part(text)]) };
        json!({ "id": "msg_sim", "content": content, "role": "assistant", "status": status, "type": "message" })
    }

    fn message(&self, content: Value, stop_reason: Value, usage: Value) -> Value {
        json!({ "id": "msg_sim", "type": "message", "role": "assistant", "content": content,
            "model": self.body["model"], "stop_reason": stop_reason, "stop_sequence": null, "usage": usage })
    }

    /// The events of a stream up to where its end begins, and the events of that end.
    pub(crate) fn events(&self) -> Events {
        let (deltas, end) = match self.call {
            CallKind::Responses => self.response_events(),
            _ => self.message_events(),
        };
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        let end = match &self.answer.end {
            // Of the two protocols vLLM ends one so.
            End::Done if self.call == CallKind::Messages => end.into_iter().chain([done]).collect(),
            End::Done | End::WithoutDone => end,
            End::ErrorEvent(data) => vec![batchin_openai::sse::frame(data.as_bytes()), done],
            End::Silent | End::Cut | End::Hang => Vec::new(),
        };
        Events { deltas, end }
    }

    fn response_events(&self) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut sequence = 0;
        let mut event = |name: &str, mut data: Value| {
            data["type"] = name.into();
            data["sequence_number"] = sequence.into();
            sequence += 1;
            named(name, &data)
        };
        let running = || json!({ "response": self.response("in_progress", json!([]), Value::Null) });
        let at = |mut data: Value| {
            data["item_id"] = "msg_sim".into();
            data["output_index"] = 0.into();
            data["content_index"] = 0.into();
            data
        };
        let mut deltas = vec![
            event("response.created", running()),
            event("response.in_progress", running()),
            event("response.output_item.added", json!({ "output_index": 0, "item": self.item("in_progress", "") })),
            event("response.content_part.added", at(json!({ "part": part("") }))),
        ];
        for token in 0..self.tokens() {
            let delta = json!({ "delta": token_text(token), "logprobs": [] });
            deltas.push(event("response.output_text.delta", at(delta)));
        }
        let text = self.text();
        let done = self.item("completed", &text);
        let last = format!("response.{}", self.ended());
        let end = vec![
            event("response.output_text.done", at(json!({ "text": text, "logprobs": [] }))),
            event("response.content_part.done", at(json!({ "part": part(&text) }))),
            event("response.output_item.done", json!({ "output_index": 0, "item": done })),
            event(&last, json!({ "response": self.response(self.ended(), json!([done]), self.usage()) })),
        ];
        (deltas, end)
    }

    fn message_events(&self) -> (Vec<Bytes>, Vec<Bytes>) {
        let event = |mut data: Value, name: &str| {
            data["type"] = name.into();
            named(name, &data)
        };
        let begun = json!({ "input_tokens": self.prompt, "output_tokens": 0 });
        let begun = if self.answer.usage == UsageMode::Never { Value::Null } else { begun };
        let mut deltas = vec![
            event(json!({ "message": self.message(json!([]), Value::Null, begun) }), "message_start"),
            event(json!({ "index": 0, "content_block": { "type": "text", "text": "" } }), "content_block_start"),
        ];
        for token in 0..self.tokens() {
            let delta = json!({ "index": 0, "delta": { "type": "text_delta", "text": token_text(token) } });
            deltas.push(event(delta, "content_block_delta"));
        }
        let mut ended = json!({ "delta": { "stop_reason": self.stop_reason(), "stop_sequence": null } });
        if self.answer.usage != UsageMode::Never {
            ended["usage"] = json!({ "input_tokens": self.prompt, "output_tokens": self.tokens() });
        }
        let end = vec![
            event(json!({ "index": 0 }), "content_block_stop"),
            event(ended, "message_delta"),
            event(json!({}), "message_stop"),
        ];
        (deltas, end)
    }
}

fn part(text: &str) -> Value {
    json!({ "annotations": [], "text": text, "type": "output_text", "logprobs": null })
}

fn named(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
