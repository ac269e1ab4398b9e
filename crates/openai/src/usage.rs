//! Holds: how many tokens a model server says an answer took.
//!
//! It reads counts and never guesses them: an estimate is the gateway's business and is marked as one.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::members::each_member;

/// Token counts of one answer, each as far as the server tells it. Cached tokens are part of the prompt, reasoning
/// tokens part of the completion. A count beyond 64 bits is the largest that fits: whoever charges bounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read; never zero, as there is no request without a token.
    pub prompt_tokens: Option<u64>,
    /// Tokens produced; 0 for embeddings.
    pub completion_tokens: Option<u64>,
    /// Tokens read from the server's prefix cache; at most `prompt_tokens`, where that is known.
    pub cached_tokens: u64,
    /// Tokens produced as hidden reasoning; at most `completion_tokens`, where that is known.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Both counts.
    pub const fn of(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens: Some(prompt_tokens),
            completion_tokens: Some(completion_tokens),
            cached_tokens: 0,
            reasoning_tokens: 0,
        }
    }

    /// Whether it counts any tokens of the completion, whose text then need not be counted.
    pub fn counts_completion(&self) -> bool {
        self.completion_tokens.is_some_and(|count| count > 0)
    }

    /// What is known after both were said: counts grow while a stream goes on, and what is not told undoes nothing.
    #[must_use]
    pub fn merged(self, later: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.max(later.prompt_tokens),
            completion_tokens: self.completion_tokens.max(later.completion_tokens),
            cached_tokens: self.cached_tokens.max(later.cached_tokens),
            reasoning_tokens: self.reasoning_tokens.max(later.reasoning_tokens),
        }
    }
}

/// The usage of a whole answer or of a stream chunk.
///
/// Each member is read for itself: one that is no count is as if it were not there. `None` when nothing is told, or
/// nothing but zeros (Ollama puts such an object on every chunk): zero would mean free work.
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

/// The counts as they are told.
#[derive(Default)]
struct Told {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
    /// SGLang puts it beside the totals.
    reasoning_beside: Option<u64>,
}

pub(crate) fn parse_usage(raw: &RawValue) -> Option<Usage> {
    let mut told = Told::default();
    each_member(raw.get(), |key, value| {
        let json = value.get();
        let (place, found) = match key.as_ref() {
            "prompt_tokens" => (&mut told.prompt, count(json)),
            "completion_tokens" => (&mut told.completion, count(json)),
            "total_tokens" => (&mut told.total, count(json)),
            "reasoning_tokens" => (&mut told.reasoning_beside, count(json)),
            "prompt_tokens_details" => (&mut told.cached, detail(json, "cached_tokens")),
            "completion_tokens_details" => (&mut told.reasoning, detail(json, "reasoning_tokens")),
            _ => return ControlFlow::Continue(()),
        };
        *place = found.or(*place);
        ControlFlow::Continue(())
    })
    .ok()?;
    told.usage()
}

impl Told {
    fn usage(self) -> Option<Usage> {
        let left_of_total = |part: Option<u64>| self.total?.checked_sub(part?);
        let prompt_tokens = self.prompt.or_else(|| left_of_total(self.completion)).filter(|count| *count > 0);
        let completion_tokens = self.completion.or_else(|| left_of_total(self.prompt));
        if prompt_tokens.is_none() && completion_tokens.unwrap_or(0) == 0 {
            return None;
        }
        let reasoning = self.reasoning.or(self.reasoning_beside).unwrap_or(0);
        Some(Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens: self.cached.unwrap_or(0).min(prompt_tokens.unwrap_or(u64::MAX)),
            reasoning_tokens: reasoning.min(completion_tokens.unwrap_or(u64::MAX)),
        })
    }
}

/// A count within details, which are information: whatever else they are, they are not there.
fn detail(json: &str, name: &str) -> Option<u64> {
    let mut found = None;
    each_member(json, |key, value| {
        if key == name {
            found = count(value.get());
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    found
}

/// A whole number that is not negative, however it is spelled: `10`, `10.0`, `1e1`.
pub(crate) fn count(json: &str) -> Option<u64> {
    if let Ok(count) = json.parse() {
        return Some(count);
    }
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number: f64 = json.parse().ok().filter(|_| is_number)?;
    if number < 0.0 || (number.is_finite() && number.fract() != 0.0) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and a cast saturates")]
    Some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn told(body: &str, expected: Option<Usage>) {
        assert_eq!(usage_of(body.as_bytes()), expected, "{body}");
    }

    #[track_caller]
    fn check(body: &str, expected: Option<(u64, u64, u64, u64)>) {
        let expected = expected.map(|(prompt, completion, cached_tokens, reasoning_tokens)| Usage {
            cached_tokens,
            reasoning_tokens,
            ..Usage::of(prompt, completion)
        });
        told(body, expected);
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
        check(r#"{"usage":[]}"#, None);
        check(r#"{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#, None);
        check(r#"{"usage":{"prompt_tokens":[],"completion_tokens":"x"}}"#, None);
        check(r#"{"usage":{"total_tokens":12}}"#, None);
        check("not json", None);
    }

    #[test]
    fn an_odd_member_spoils_no_other() {
        for details in ["[]", "null", "0", "\"x\"", "{}", "{\"reasoning_tokens\":[1]}", "{\"reasoning_tokens\":\"2\"}"]
        {
            let odd = format!(
                r#"{{"usage":{{"completion_tokens_details":{details},"prompt_tokens":10,"prompt_tokens_details":{details},"completion_tokens":5}}}}"#
            );
            check(&odd, Some((10, 5, 0, 0)));
        }
        check(
            r#"{"usage":{"prompt_tokens":10.0,"completion_tokens":5e0,"prompt_tokens_details":{"cached_tokens":4.0}}}"#,
            Some((10, 5, 4, 0)),
        );
        check(r#"{"usage":{"prompt_tokens":1e1,"completion_tokens":0.5E1,"total_tokens":{}}}"#, Some((10, 5, 0, 0)));
    }

    #[test]
    fn what_is_not_told_follows_from_the_total_or_stays_unknown() {
        let only =
            |prompt_tokens, completion_tokens| Some(Usage { prompt_tokens, completion_tokens, ..Usage::default() });
        told(r#"{"usage":{"completion_tokens":3}}"#, only(None, Some(3)));
        told(r#"{"usage":{"prompt_tokens":3}}"#, only(Some(3), None));
        told(r#"{"usage":{"prompt_tokens":1.5,"completion_tokens":3}}"#, only(None, Some(3)));
        told(r#"{"usage":{"prompt_tokens":-1,"completion_tokens":3}}"#, only(None, Some(3)));
        told(r#"{"usage":{"prompt_tokens":0,"completion_tokens":3}}"#, only(None, Some(3)));
        told(r#"{"usage":{"prompt_tokens":3,"completion_tokens":-1}}"#, only(Some(3), None));
        told(r#"{"usage":{"completion_tokens":3,"total_tokens":9}}"#, only(Some(6), Some(3)));
        told(r#"{"usage":{"prompt_tokens":7,"completion_tokens":null,"total_tokens":9}}"#, only(Some(7), Some(2)));
        told(r#"{"usage":{"prompt_tokens":7,"total_tokens":5}}"#, only(Some(7), None));
    }

    #[test]
    fn huge_counts_are_the_largest_that_fits() {
        for huge in ["18446744073709551616", "1e30", "1e400", "123456789012345678901234567890.0"] {
            check(
                &format!(r#"{{"usage":{{"prompt_tokens":{huge},"completion_tokens":{huge}}}}}"#),
                Some((u64::MAX, u64::MAX, 0, 0)),
            );
        }
        check(r#"{"usage":{"prompt_tokens":9223372036854775808,"completion_tokens":1}}"#, Some((1 << 63, 1, 0, 0)));
    }

    #[test]
    fn later_counts_undo_nothing() {
        let first = Usage { prompt_tokens: Some(9), cached_tokens: 4, ..Usage::default() };
        let second = Usage { completion_tokens: Some(3), reasoning_tokens: 1, ..Usage::default() };
        let both = Usage { cached_tokens: 4, reasoning_tokens: 1, ..Usage::of(9, 3) };
        assert_eq!((first.merged(second), second.merged(first)), (both, both));
        assert_eq!(both.merged(Usage::of(9, 7)).completion_tokens, Some(7));
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
