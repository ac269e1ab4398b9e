//! Holds: how many tokens a model server says an answer took.
//!
//! It reads counts and never guesses them: an estimate is the gateway's business and is marked as one.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::members::each_member;

/// Token counts of one answer, each as far as the server tells it. Tokens that were found in a cache or written to one are
/// part of the prompt, reasoning tokens part of the completion. A count beyond 64 bits is the largest that fits, and parts
/// of the prompt may be said to be more than it has: whoever charges bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read; never zero, as there is no request without a token.
    pub prompt_tokens: Option<u64>,
    /// Tokens produced; 0 for embeddings.
    pub completion_tokens: Option<u64>,
    /// Tokens read from the server's prefix cache.
    pub cached_tokens: u64,
    /// Tokens written to it.
    pub cache_write_tokens: u64,
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
            cache_write_tokens: 0,
            reasoning_tokens: 0,
        }
    }

    /// What is known of several answers, to so many prompts, of which a server counts one: nothing of what they have, and the
    /// prompt where all of them answer the same.
    #[must_use]
    pub const fn of_one_answer(self, prompts: u32) -> Self {
        let prompt = if prompts == 1 { self } else { Self::UNKNOWN };
        Self { completion_tokens: None, reasoning_tokens: 0, ..prompt }
    }

    const UNKNOWN: Self = Self {
        prompt_tokens: None,
        completion_tokens: None,
        cached_tokens: 0,
        cache_write_tokens: 0,
        reasoning_tokens: 0,
    };

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
            cache_write_tokens: self.cache_write_tokens.max(later.cache_write_tokens),
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
    /// The largest that is told: some servers fill one place with zero and tell the count in another.
    cached: u64,
    written: u64,
    anthropic: Anthropic,
    reasoning: Option<u64>,
    /// SGLang puts it beside the totals.
    reasoning_beside: Option<u64>,
}

/// What was found in a cache and written to one, by the names of Anthropic's API beside the totals.
#[derive(Clone, Copy, Default)]
struct Anthropic {
    read: u64,
    written: u64,
}

pub(crate) fn parse_usage(raw: &RawValue) -> Option<Usage> {
    let mut told = Told::default();
    each_member(raw.get(), |key, value| {
        told.take(key.as_ref(), value.get());
        ControlFlow::Continue(())
    })
    .ok()?;
    told.usage()
}

/// Counts by the names of the Responses API.
pub(crate) fn response_usage(raw: &RawValue) -> Option<Usage> {
    let mut told = Told::default();
    each_member(raw.get(), |key, value| {
        let member = match key.as_ref() {
            "input_tokens" => "prompt_tokens",
            "output_tokens" => "completion_tokens",
            "input_tokens_details" => "prompt_tokens_details",
            "output_tokens_details" => "completion_tokens_details",
            member => member,
        };
        told.take(member, value.get());
        ControlFlow::Continue(())
    })
    .ok()?;
    told.usage()
}

/// The total of a usage, which is the prompt where nothing is generated.
pub(crate) fn prompt_of_total(raw: &RawValue) -> Option<u64> {
    let mut total = None;
    each_detail(raw.get(), |member, count| {
        if member == "total_tokens" {
            total = Some(count);
        }
    });
    total.filter(|total| *total > 0)
}

impl Told {
    fn take(&mut self, member: &str, json: &str) {
        let told = |place: &mut Option<u64>| *place = count(json).or(*place);
        let largest = |place: &mut u64| *place = count(json).unwrap_or(0).max(*place);
        match member {
            "prompt_tokens" => told(&mut self.prompt),
            "completion_tokens" => told(&mut self.completion),
            "total_tokens" => told(&mut self.total),
            "reasoning_tokens" => told(&mut self.reasoning_beside),
            // Moonshot's and DeepSeek's.
            "cached_tokens" | "prompt_cache_hit_tokens" => largest(&mut self.cached),
            "cache_read_input_tokens" => largest(&mut self.anthropic.read),
            "cache_creation_input_tokens" => largest(&mut self.anthropic.written),
            "prompt_tokens_details" => each_detail(json, |member, count| self.take_prompt(member, count)),
            "completion_tokens_details" => each_detail(json, |member, count| {
                if member == "reasoning_tokens" {
                    self.reasoning = Some(count);
                }
            }),
            _ => {}
        }
    }

    /// A detail of the prompt, which is part of it by whatever name.
    fn take_prompt(&mut self, member: &str, count: u64) {
        let place = match member {
            "cached_tokens" => &mut self.cached,
            // OpenAI's, vLLM's, DashScope's, LiteLLM's.
            "cache_write_tokens" | "created_cache_tokens" | "cache_creation_input_tokens" | "cache_creation_tokens" => {
                &mut self.written
            }
            _ => return,
        };
        *place = count.max(*place);
    }

    /// In Anthropic's own API these stand beside a prompt without them. Translated to OpenAI's they are in it only where
    /// the prompt has room for both and the total has none beside it.
    fn in_prompt(&self) -> Anthropic {
        let Anthropic { read, written } = self.anthropic;
        let fits = self.prompt.is_some_and(|prompt| read.saturating_add(written) <= prompt);
        let beside = self.prompt.zip(self.completion).map(|(prompt, completion)| prompt.saturating_add(completion));
        if fits && beside.is_some() && beside == self.total { self.anthropic } else { Anthropic::default() }
    }

    fn usage(self) -> Option<Usage> {
        let left_of_total = |part: Option<u64>| self.total?.checked_sub(part?);
        let prompt_tokens = self.prompt.or_else(|| left_of_total(self.completion)).filter(|count| *count > 0);
        let completion_tokens = self.completion.or_else(|| left_of_total(self.prompt));
        if prompt_tokens.is_none() && completion_tokens.unwrap_or(0) == 0 {
            return None;
        }
        let reasoning = self.reasoning.or(self.reasoning_beside).unwrap_or(0);
        let anthropic = self.in_prompt();
        Some(Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens: self.cached.max(anthropic.read),
            cache_write_tokens: self.written.max(anthropic.written),
            reasoning_tokens: reasoning.min(completion_tokens.unwrap_or(u64::MAX)),
        })
    }
}

/// Tells each count of details. What is no count is as if it were not there, and so are details that are no object.
fn each_detail(json: &str, mut tell: impl FnMut(&str, u64)) {
    // JSON that was read before: all that can be wrong is that it is something else.
    let _no_object = each_member(json, |key, value| {
        if let Some(count) = count(value.get()) {
            tell(key.as_ref(), count);
        }
        ControlFlow::Continue(())
    });
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
        let second =
            Usage { completion_tokens: Some(3), cache_write_tokens: 2, reasoning_tokens: 1, ..Usage::default() };
        let both = Usage { cached_tokens: 4, cache_write_tokens: 2, reasoning_tokens: 1, ..Usage::of(9, 3) };
        assert_eq!((first.merged(second), second.merged(first)), (both, both));
        assert_eq!(both.merged(Usage::of(9, 7)).completion_tokens, Some(7));
    }

    #[test]
    fn reasoning_is_never_more_than_the_completion() {
        check(r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"reasoning_tokens":7}}"#, Some((9, 3, 0, 3)));
    }

    #[track_caller]
    fn check_cache(members: &str, cached_tokens: u64, cache_write_tokens: u64) {
        let body = format!(r#"{{"usage":{{"prompt_tokens":90,"completion_tokens":3,{members}}}}}"#);
        told(&body, Some(Usage { cached_tokens, cache_write_tokens, ..Usage::of(90, 3) }));
    }

    #[test]
    fn what_a_cache_had_and_got_is_read_from_every_shape() {
        // OpenAI, OpenRouter.
        check_cache(r#""prompt_tokens_details":{"cached_tokens":50,"cache_write_tokens":30}"#, 50, 30);
        // vLLM.
        check_cache(r#""prompt_tokens_details":{"cached_tokens":48,"created_cache_tokens":32}"#, 48, 32);
        // DashScope.
        check_cache(
            r#""prompt_tokens_details":{"cached_tokens":0,"cache_creation_input_tokens":80,
                "cache_creation":{"ephemeral_5m_input_tokens":80},"cache_type":"ephemeral"}"#,
            0,
            80,
        );
        // DeepSeek, with and without OpenAI's beside its own.
        check_cache(r#""prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":26"#, 64, 0);
        check_cache(
            r#""prompt_tokens_details":{"cached_tokens":64},"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":26"#,
            64,
            0,
        );
        // Moonshot.
        check_cache(r#""total_tokens":93,"cached_tokens":70"#, 70, 0);
        // A proxy that fills in what its server does not tell.
        check_cache(r#""cached_tokens":70,"prompt_tokens_details":{"cached_tokens":0}"#, 70, 0);
        // LiteLLM.
        check_cache(
            r#""total_tokens":93,"prompt_tokens_details":{"cached_tokens":50,"cache_creation_tokens":30},
                "cache_creation_input_tokens":30,"cache_read_input_tokens":50"#,
            50,
            30,
        );
        // More than the prompt has is bounded by whoever charges.
        check_cache(r#""prompt_tokens_details":{"cached_tokens":900,"cache_write_tokens":1e30}"#, 900, u64::MAX);
        for odd in ["null", "-4", "\"50\"", "[50]", "1.5"] {
            check_cache(
                &format!(
                    r#""cached_tokens":{odd},"prompt_cache_hit_tokens":{odd},"total_tokens":93,
                    "cache_read_input_tokens":{odd},"cache_creation_input_tokens":{odd},
                    "prompt_tokens_details":{{"cached_tokens":{odd},"cache_write_tokens":{odd},"created_cache_tokens":7}}"#
                ),
                0,
                7,
            );
        }
    }

    #[test]
    fn what_may_stand_beside_the_prompt_is_no_part_of_it() {
        let anthropic = r#""cache_read_input_tokens":50,"cache_creation_input_tokens":30"#;
        check_cache(&format!(r#""total_tokens":93,{anthropic}"#), 50, 30);
        for beside in [
            // A total with room for them, and none.
            format!(r#""total_tokens":173,{anthropic}"#),
            anthropic.to_owned(),
            r#""total_tokens":93,"cache_read_input_tokens":61,"cache_creation_input_tokens":30"#.to_owned(),
            r#""total_tokens":93,"cache_read_input_tokens":18446744073709551615,"cache_creation_input_tokens":30"#
                .to_owned(),
        ] {
            check_cache(&beside, 0, 0);
        }
    }
}
