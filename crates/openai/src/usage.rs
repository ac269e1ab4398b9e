//! Holds: how many tokens a model server says an answer took.
//!
//! It reads counts and never guesses them: an estimate is the gateway's business and is marked as one.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::members::each_member;

/// Token counts of one answer. Cached tokens are part of the prompt, reasoning tokens part of the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens produced; 0 for embeddings.
    pub completion_tokens: u64,
    /// Tokens read from the server's prefix cache; at most `prompt_tokens`.
    pub cached_tokens: u64,
    /// Tokens produced as hidden reasoning; at most `completion_tokens`.
    pub reasoning_tokens: u64,
}

/// The usage of a whole answer or of a stream chunk.
///
/// `None` when there is none, when a count is no whole number, or when all counts are zero (Ollama puts such an
/// object on every chunk): a request without a single prompt token does not exist, so zero would mean free work.
pub fn usage_of(body: &[u8]) -> Option<Usage> {
    let text = std::str::from_utf8(body).ok()?;
    let mut usage = None;
    each_member(text, |key, value| {
        if key == "usage" {
            usage = parse_usage(value);
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    usage
}

pub(crate) fn parse_usage(raw: &RawValue) -> Option<Usage> {
    let wire: Wire = serde_json::from_str(raw.get()).ok()?;
    let prompt_tokens = wire.prompt_tokens?;
    let completion_tokens = wire.completion_tokens.unwrap_or(0);
    if prompt_tokens == 0 && completion_tokens == 0 {
        return None;
    }
    let cached = wire.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    let nested = wire.completion_tokens_details.and_then(|details| details.reasoning_tokens);
    let reasoning = nested.or(wire.reasoning_tokens).unwrap_or(0);
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens: cached.min(prompt_tokens),
        reasoning_tokens: reasoning.min(completion_tokens),
    })
}

#[derive(Deserialize)]
struct Wire {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    // SGLang puts it beside the totals.
    reasoning_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<(u64, u64, u64, u64)>) {
        let expected = expected.map(|(prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)| Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            reasoning_tokens,
        });
        assert_eq!(usage_of(body.as_bytes()), expected, "{body}");
    }

    #[test]
    fn every_server_s_usage_is_read() {
        check(r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#, Some((9, 3, 0, 0)));
        check(
            r#"{"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,"prompt_tokens_details":null}}"#,
            Some((9, 3, 0, 0)),
        );
        check(
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4,
                "multimodal_tokens":{"image":2}},"completion_tokens_details":{"reasoning_tokens":2}}}"#,
            Some((9, 3, 4, 2)),
        );
        check(r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"reasoning_tokens":1}}"#, Some((9, 3, 0, 1)));
        check(r#"{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}"#, Some((9, 0, 0, 0)));
        check(
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":null}}}"#,
            Some((9, 3, 0, 0)),
        );
    }

    #[test]
    fn what_is_no_count_is_no_usage() {
        check(r#"{"usage":null}"#, None);
        check(r#"{"choices":[]}"#, None);
        check(r#"{"usage":{"prompt_tokens":1.5,"completion_tokens":3}}"#, None);
        check(r#"{"usage":{"prompt_tokens":-1,"completion_tokens":3}}"#, None);
        check(r#"{"usage":{"completion_tokens":3}}"#, None);
        check(r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#, None);
        check("not json", None);
    }

    #[test]
    fn parts_never_exceed_their_whole() {
        check(
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":90},
                "reasoning_tokens":7}}"#,
            Some((9, 3, 9, 3)),
        );
    }
}
