//! Holds: the bodies and stream events of the simulated model.
//!
//! Everything follows from the request and the script; no clock and no randomness.

use batchin_domain::CallKind;
use batchin_openai::Peek;
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

/// Prompt tokens that the simulated server counts: the words in the messages, prompt or input, or the token ids sent; and of
/// each document the words, with those of the query.
pub fn prompt_tokens(body: &[u8]) -> u64 {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return 0 };
    let messages = body["messages"].as_array().into_iter().flatten().map(|message| words(&message["content"]));
    let documents = body["documents"].as_array().map_or(0, Vec::len) as u64;
    let ranked = words(&body["documents"]) + documents * words(&body["query"]);
    messages.sum::<u64>() + words(&body["prompt"]) + words(&body["input"]) + words(&body["suffix"]) + ranked
}

/// How a document is scored: which part of its words the query has too.
fn score(query: &str, document: &str) -> f64 {
    let has = |word: &&str| query.split_whitespace().any(|known| known == *word);
    let (known, all) = (document.split_whitespace().filter(has).count(), document.split_whitespace().count());
    known as f64 / all.max(1) as f64
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
    pub(crate) call: CallKind,
    pub(crate) peek: &'a Peek,
    pub(crate) body: &'a [u8],
    pub(crate) answer: &'a Answer,
}

impl Job<'_> {
    fn tokens(&self) -> u32 {
        let limit = self.peek.max_output.filter(|_| self.peek.max_output_stated || self.call == CallKind::Completions);
        self.answer.tokens.min(limit.unwrap_or(u32::MAX))
    }

    fn finish_reason(&self) -> &'static str {
        if self.tokens() < self.answer.tokens { "length" } else { "stop" }
    }

    fn usage(&self) -> String {
        let prompt = prompt_tokens(self.body);
        if !self.call.generates() {
            return format!(r#"{{"prompt_tokens":{prompt},"total_tokens":{prompt}}}"#);
        }
        let completion = u64::from(self.tokens()) * u64::from(self.answers());
        let total = prompt + completion;
        format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}"#)
    }

    /// Each prompt of a list is answered so many times.
    fn answers(&self) -> u32 {
        self.peek.choices * self.peek.bound.items.max(1)
    }

    fn model(&self) -> Value {
        Value::from(self.peek.model.as_str())
    }

    /// The body of an answer that is not streamed. Written as text: benchmarks measure what calls it.
    pub(crate) fn whole(&self) -> Bytes {
        let usage = if self.answer.usage == UsageMode::Never { "null".to_owned() } else { self.usage() };
        let model = self.model();
        if self.call == CallKind::Embeddings {
            let embedding = format!("{EMBEDDING:?}");
            let data = joined(0..self.peek.bound.items, |index| {
                format!(r#"{{"object":"embedding","index":{index},"embedding":{embedding}}}"#)
            });
            return format!(r#"{{"object":"list","data":[{data}],"model":{model},"usage":{usage}}}"#).into();
        }
        if self.call == CallKind::Rerank {
            let results = Value::from(self.ranked());
            return format!(r#"{{"id":"sim-1","model":{model},"usage":{usage},"results":{results}}}"#).into();
        }
        if self.call.hears() {
            return self.transcript().into();
        }
        // The words need no escapes.
        let text: String = (0..self.tokens()).map(token_text).collect();
        let (object, reason) = (self.object(""), self.finish_reason());
        let choices = joined(0..self.answers(), |index| {
            let content = match self.call {
                CallKind::Chat => format!(r#""message":{{"role":"assistant","content":"{text}"}}"#),
                _ => format!(r#""text":"{text}""#),
            };
            format!(r#"{{"index":{index},{content},"logprobs":null,"finish_reason":"{reason}"}}"#)
        });
        let head = format!(r#"{{"id":"sim-1","object":"{object}","created":1700000000,"model":{model}"#);
        format!(r#"{head},"choices":[{choices}],"usage":{usage}}}"#).into()
    }

    /// In the form that was asked for, of the two that vLLM has.
    fn transcript(&self) -> String {
        let text: String = (0..self.tokens()).map(token_text).collect();
        let body: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let told = match body["response_format"].as_str() {
            Some("verbose_json") => json!({ "task": "transcribe", "language": "en", "duration": 2.0, "text": text,
                "segments": [{ "id": 0, "start": 0.0, "end": 0.5, "text": text }] }),
            _ => json!({ "text": text, "usage": { "type": "duration", "seconds": 9 } }),
        };
        told.to_string()
    }

    /// Whether its chunks have deltas.
    fn has_deltas(&self) -> bool {
        self.call == CallKind::Chat || self.call.hears()
    }

    /// As vLLM tells it: the best first, each with its text.
    fn ranked(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let query = body["query"].as_str().unwrap_or_default();
        let documents = body["documents"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut scored: Vec<(usize, &str, f64)> =
            documents.enumerate().map(|(index, text)| (index, text, score(query, text))).collect();
        scored.sort_by(|one, other| other.2.total_cmp(&one.2));
        let best = body["top_n"].as_u64().and_then(|best| usize::try_from(best).ok()).unwrap_or(scored.len());
        let told = |(index, text, score): (usize, &str, f64)| json!({"index": index, "document": {"text": text, "multi_modal": null}, "relevance_score": score});
        scored.into_iter().take(best).map(told).collect()
    }

    /// The events of a stream up to where its end begins, and the events of that end.
    pub(crate) fn events(&self) -> Events {
        let mut deltas = Vec::new();
        if self.call == CallKind::Chat {
            deltas.push(self.chunk(r#""delta":{"role":"assistant","content":""},"finish_reason":null"#, None));
        }
        for token in 0..self.tokens() {
            let text = token_text(token);
            let delta = match self.has_deltas() {
                true => format!(r#""delta":{{"content":"{text}"}},"finish_reason":null"#),
                false => format!(r#""text":"{text}","finish_reason":null"#),
            };
            deltas.push(self.chunk(&delta, None));
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
        let reason = self.finish_reason();
        let finish = match self.has_deltas() {
            true => format!(r#""delta":{{}},"finish_reason":"{reason}""#),
            false => format!(r#""text":"","finish_reason":"{reason}""#),
        };
        let on_finish = (mode == UsageMode::OnLastChunk).then(|| self.usage());
        let mut events = vec![self.chunk(&finish, on_finish)];
        if matches!(mode, UsageMode::AsAsked | UsageMode::ZerosThenLast) && self.peek.include_usage {
            events.push(self.framed("", Some(self.usage())));
        }
        events
    }

    /// A chunk in which every choice says the same.
    fn chunk(&self, choice: &str, usage: Option<String>) -> Bytes {
        let choices = joined(0..self.answers(), |index| format!(r#"{{"index":{index},{choice}}}"#));
        self.framed(&choices, usage)
    }

    fn framed(&self, choices: &str, usage: Option<String>) -> Bytes {
        const ZEROS: &str = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
        let zeros = (self.answer.usage == UsageMode::ZerosThenLast).then(|| ZEROS.to_owned());
        let usage = usage.or(zeros).map(|usage| format!(r#","usage":{usage}"#)).unwrap_or_default();
        let (object, model) = (self.object(".chunk"), self.model());
        let head = format!(r#"{{"id":"sim-1","object":"{object}","created":1700000000,"model":{model}"#);
        batchin_openai::sse::frame(format!(r#"{head},"choices":[{choices}]{usage}}}"#).as_bytes())
    }

    fn object(&self, chunk: &str) -> String {
        if self.call.hears() {
            return format!("transcription{chunk}");
        }
        if self.call == CallKind::Chat { format!("chat.completion{chunk}") } else { "text_completion".to_owned() }
    }
}

fn joined(indices: std::ops::Range<u32>, each: impl Fn(u32) -> String) -> String {
    indices.map(each).collect::<Vec<_>>().join(",")
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

    fn job(call: CallKind, body: &str, tokens: u32) -> (Value, Vec<String>) {
        let peeked = peek(call, body.as_bytes()).unwrap();
        let answer = Answer::of(tokens);
        let job = Job { call, peek: &peeked, body: body.as_bytes(), answer: &answer };
        let events = job.events();
        let events = events.deltas.iter().chain(&events.end).map(|event| String::from_utf8(event.to_vec()).unwrap());
        (serde_json::from_slice(&job.whole()).unwrap(), events.collect())
    }

    #[test]
    fn counts_follow_from_the_request() {
        let chat = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a b"}]},
            {"role":"user","content":"c"}],"max_tokens":2,"n":2,"stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(prompt_tokens(chat.as_bytes()), 3);
        let (whole, events) = job(CallKind::Chat, chat, 9);
        assert_eq!(whole["usage"], json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}));
        assert_eq!(whole["choices"][1]["finish_reason"], "length");
        assert_eq!(events.len(), 6, "role, two deltas, finish, usage, done");
        let usage = events[4].strip_prefix("data: ").and_then(|event| usage_of(event.as_bytes()));
        assert_eq!(usage.and_then(|usage| usage.completion_tokens), Some(4));
        assert_eq!(prompt_tokens(br#"{"input":[[1,2],[3]]}"#), 3);
        let (ranking, _) =
            job(CallKind::Rerank, r#"{"model":"m","query":"a b","documents":["c","b c","b a"],"top_n":2}"#, 9);
        assert_eq!(ranking["usage"], json!({"prompt_tokens": 11, "total_tokens": 11}));
        assert_eq!((&ranking["results"][0]["index"], &ranking["results"][1]["index"]), (&json!(2), &json!(1)));
    }

    #[test]
    fn default_answer_is_about_a_kilobyte() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#;
        let (whole, _) = job(CallKind::Chat, body, crate::behaviour::DEFAULT_TOKENS);
        let bytes = whole.to_string().len();
        assert!((900..1150).contains(&bytes), "{bytes}");
    }
}
