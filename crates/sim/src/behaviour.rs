//! Holds: what the simulated server does with a request.
//!
//! Plain data, written in a test or read from a model's name.

use std::time::Duration;

use bytes::Bytes;

/// Tokens of an answer unless the script says otherwise: about 1 KB of JSON in all.
pub const DEFAULT_TOKENS: u32 = 110;

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// An answer, whole or streamed as the request asks.
    Answer(Answer),
    /// A refusal before any work.
    Refuse(Refusal),
    /// The connection closes before a byte of the answer.
    Drop,
    /// Status 200, these pieces of body with the gap between them, and then this end.
    Raw {
        /// `content-type` of the answer.
        content_type: &'static str,
        /// Written one by one.
        pieces: Vec<Bytes>,
        /// Before each piece.
        gap: Duration,
        /// After the last piece; [`End::Done`] closes the body properly.
        end: End,
    },
    /// No byte ever comes.
    Hang,
}

/// An answer of the simulated model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Tokens produced, unless the request allows fewer. One stream delta each.
    pub tokens: u32,
    /// Before the head of the answer.
    pub first_byte: Duration,
    /// Before each delta.
    pub gap: Duration,
    /// When the answer says how many tokens it took.
    pub usage: UsageMode,
    /// How a stream ends.
    pub end: End,
}

/// When usage is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageMode {
    /// In a whole answer always; in a stream as a chunk of its own when `stream_options.include_usage` asks.
    AsAsked,
    /// Never, whatever is asked.
    Never,
    /// In a stream on the last chunk that has a choice, as llama.cpp does for completions.
    OnLastChunk,
    /// Zeros on every chunk and the counts at the end, as Ollama does.
    ZerosThenLast,
}

/// How a stream ends after its deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Finish reason, usage, `[DONE]`.
    Done,
    /// Finish reason and usage, but no `[DONE]`.
    WithoutDone,
    /// The body ends properly after the deltas, without a finish reason.
    Silent,
    /// The connection breaks after the deltas.
    Cut,
    /// Nothing more comes and the connection stays open.
    Hang,
    /// This event's data, then `[DONE]`, as vLLM reports a failure.
    ErrorEvent(String),
}

/// A refusal with a server's own shape of body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// `content-type` of the body.
    pub content_type: &'static str,
    /// `retry-after`, as it is written.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour::Answer(Answer::default())
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            tokens: DEFAULT_TOKENS,
            first_byte: Duration::ZERO,
            gap: Duration::ZERO,
            usage: UsageMode::AsAsked,
            end: End::Done,
        }
    }
}

impl Answer {
    /// An answer of so many tokens, at once.
    pub fn of(tokens: u32) -> Self {
        Self { tokens, ..Self::default() }
    }
}

impl Refusal {
    /// OpenAI's shape, of a member that it does not know.
    pub fn openai(status: u16, message: &str, param: &str) -> Self {
        let error = serde_json::json!({"message": message, "type": "invalid_request_error", "param": param,
            "code": "unknown_parameter"});
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// vLLM's shape: nested, with the status as the code.
    pub fn vllm(status: u16, message: &str) -> Self {
        let error = serde_json::json!({"message": message, "type": "BadRequestError", "param": null, "code": status});
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// SGLang's shape: flat.
    pub fn sglang(status: u16, message: &str) -> Self {
        let kind = status.to_string();
        let body =
            serde_json::json!({"object": "error", "message": message, "type": kind, "param": null, "code": status});
        Self::json(status, &body)
    }

    /// llama.cpp's shape: nested, without `param`.
    pub fn llama_cpp(status: u16, message: &str) -> Self {
        let error = serde_json::json!({"code": status, "message": message, "type": "invalid_request_error"});
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// The error as a string, as in vLLM's 401.
    pub fn string(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": message }))
    }

    /// FastAPI's shape.
    pub fn fast_api(status: u16, detail: &str) -> Self {
        Self::json(status, &serde_json::json!({ "detail": detail }))
    }

    /// A proxy's page.
    pub fn html(status: u16) -> Self {
        let body = format!("<html><head><title>{status}</title></head><body>nginx</body></html>");
        Self { status, content_type: "text/html", retry_after: None, body: body.into() }
    }

    /// This refusal with `retry-after`.
    pub fn retry_after(mut self, value: &str) -> Self {
        self.retry_after = Some(value.to_owned());
        self
    }

    fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, content_type: "application/json", retry_after: None, body: body.to_string().into() }
    }
}

impl Behaviour {
    /// The behaviour that a model's name describes, as in `sim:tokens=20,gap_ms=5,first_ms=10,usage=never,end=cut`,
    /// `sim:status=503`, `sim:drop` or `sim:hang`. `None` for any other name; unknown words are ignored.
    pub fn of_model(name: &str) -> Option<Self> {
        let script = name.strip_prefix("sim:")?;
        let mut answer = Answer::default();
        for word in script.split(',') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<u32>().unwrap_or(0);
            let millis = || Duration::from_millis(number().into());
            match (key, value) {
                ("drop", _) => return Some(Behaviour::Drop),
                ("hang", _) => return Some(Behaviour::Hang),
                ("status", _) => {
                    let status = value.parse().unwrap_or(500);
                    return Some(Behaviour::Refuse(Refusal::vllm(status, "scripted refusal")));
                }
                ("tokens", _) => answer.tokens = number(),
                ("gap_ms", _) => answer.gap = millis(),
                ("first_ms", _) => answer.first_byte = millis(),
                ("usage", "never") => answer.usage = UsageMode::Never,
                ("usage", "last") => answer.usage = UsageMode::OnLastChunk,
                ("usage", "zeros") => answer.usage = UsageMode::ZerosThenLast,
                ("end", "cut") => answer.end = End::Cut,
                ("end", "hang") => answer.end = End::Hang,
                ("end", "silent") => answer.end = End::Silent,
                ("end", "without_done") => answer.end = End::WithoutDone,
                ("end", "error") => {
                    answer.end = End::ErrorEvent(r#"{"error":{"message":"scripted failure","code":500}}"#.to_owned());
                }
                _ => {}
            }
        }
        Some(Behaviour::Answer(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_describe_behaviour() {
        assert_eq!(Behaviour::of_model("qwen"), None);
        assert_eq!(Behaviour::of_model("sim:hang"), Some(Behaviour::Hang));
        let expected = Answer { tokens: 3, gap: Duration::from_millis(5), end: End::Cut, ..Answer::default() };
        assert_eq!(Behaviour::of_model("sim:tokens=3,gap_ms=5,end=cut"), Some(Behaviour::Answer(expected)));
    }
}
