//! Holds: what is read from a model server's whole answer and what is changed in it.
//!
//! The public id and model name replace the server's, reasoning gets both of its names, and choices end as OpenAI's do; all
//! else passes through byte for byte.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    blank::says_something,
    embeddings,
    ending::failed_choice,
    error::{UpstreamError, upstream_error_message},
    members::{each_member, quoted, range_in},
    ranking,
    rewrite::{Change, Member, members_of, splice},
    said::choices_bytes,
    usage::{Usage, parse_usage, prompt_of_total},
    wanted::Wanted,
    whole::choices_told,
};

/// A whole answer, ready for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeAnswer {
    /// The body with the public id and model.
    pub body: Bytes,
    /// What the server counted, when it says so.
    pub usage: Option<Usage>,
    /// Bytes of text in its choices: content, reasoning, refusals, tool calls' names and arguments. 0 for embeddings, and
    /// where the server counted the completion, since nothing is then counted by it.
    pub text_bytes: u64,
}

/// The body of a successful status is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is not a JSON object, or one without a result.
    #[error("the answer is not a JSON object with a result")]
    NotAnAnswer,
    /// It is an error in spite of its status.
    #[error("the answer is an error")]
    Refused(UpstreamError),
}

/// Reads usage and sets `id` and `model`, in one pass.
pub fn read_answer(body: &Bytes, id: &str, model: &str) -> Result<WholeAnswer, AnswerError> {
    read_wanted(body, (id, model), (Wanted::Choices, b""))
}

/// The same of an answer that must have something in it, whose request had this body: vectors stand in the order of their
/// inputs, as they were asked for, and rankings have one shape. An answer without them is none.
pub fn read_wanted(
    body: &Bytes,
    (id, model): (&str, &str),
    (wanted, request): (Wanted, &[u8]),
) -> Result<WholeAnswer, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::NotAnAnswer)?;
    let mut members = Vec::with_capacity(16);
    let ranks = matches!(wanted, Wanted::Ranking(_));
    let mut facts = Facts { ranks, hears: wanted == Wanted::Transcript, ..Facts::default() };
    // SGLang's.
    let is_bare_list = facts.ranks && text.trim_ascii_start().starts_with('[');
    if is_bare_list {
        (facts.has_result, facts.results) = (true, Some(text));
    } else {
        each_member(text, |key, value| {
            facts.note(&key, value);
            members.push(Member { key, value, at: range_in(text, value.get()) });
            ControlFlow::Continue(())
        })
        .map_err(|_| AnswerError::NotAnAnswer)?;
    }
    match (facts.has_result, facts.has_error) {
        (true, _) => {}
        (false, true) => return Err(AnswerError::Refused(upstream_error_message(500, body))),
        (false, false) => return Err(AnswerError::NotAnAnswer),
    }
    if facts.data.is_some() || facts.results.is_some() {
        facts.count_prompt_alone();
    }
    let none = AnswerError::NotAnAnswer;
    let body = match (wanted, facts.data, facts.results) {
        // It has no names in it.
        (Wanted::Transcript, ..) => body.clone(),
        (Wanted::Choices, ..) => {
            let choices = choices_told(facts.choices.unwrap_or_default());
            let choices = choices.map_err(|_| AnswerError::Refused(failed_choice()))?;
            told(body, (text, &members), (id, model), choices.map(|choices| ("choices", choices)))
        }
        (Wanted::Vectors(vectors), Some(data), _) => {
            let data = embeddings::in_form(data, vectors).map_err(|_| none)?;
            told(body, (text, &members), (id, model), data.map(|data| ("data", data)))
        }
        (Wanted::Ranking(ranking), data, results) => {
            let list = results.or(data.map(RawValue::get)).ok_or(none.clone())?;
            ranking::told(list, ranking, (id, model), (facts.usage, request)).map_err(|_| none)?
        }
        // Sound is no JSON, and pictures are read by their own.
        (Wanted::Vectors(_), None, _) | (Wanted::Sound(_) | Wanted::Pictures(_), ..) => return Err(none),
    };
    let is_counted = facts.usage.is_some_and(|usage| usage.counts_completion());
    let text_bytes = facts.choices.filter(|_| !is_counted).map_or(0, choices_bytes);
    Ok(WholeAnswer { body, usage: facts.usage, text_bytes })
}

impl<'a> Facts<'a> {
    fn note(&mut self, key: &str, value: &'a RawValue) {
        let json = value.get();
        match key {
            "usage" => (self.usage, self.counts) = (parse_usage(value), Some(value)),
            "choices" => (self.has_result, self.choices) = (json.starts_with('['), Some(json)),
            "data" => (self.has_result, self.data) = (json.starts_with('['), Some(value)),
            "text" if self.hears => self.has_result = json.starts_with('"'),
            "results" if self.ranks => (self.has_result, self.results) = (json.starts_with('['), Some(json)),
            "error" => self.has_error |= says_something(json),
            // Errors that have no member around them.
            "message" | "detail" => self.has_error |= says_something(json),
            "object" => self.has_error |= json == "\"error\"",
            _ => {}
        }
    }

    /// Of an answer in which nothing was generated. Some servers tell the total alone, which is the prompt then.
    fn count_prompt_alone(&mut self) {
        let of_total = || self.counts.and_then(prompt_of_total).map(|prompt| Usage::of(prompt, 0));
        self.usage = self.usage.or_else(of_total);
        if let Some(usage) = &mut self.usage {
            usage.completion_tokens.get_or_insert(0);
        }
    }
}

/// Sets the top-level `id` and `model` of an answer or a stream chunk; other bytes stay, and so does a body that is
/// not a JSON object.
pub fn rewrite_answer(body: &Bytes, id: &str, model: &str) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    told(body, (text, &members), (id, model), None)
}

#[derive(Default)]
struct Facts<'a> {
    usage: Option<Usage>,
    /// The usage as it came.
    counts: Option<&'a RawValue>,
    choices: Option<&'a str>,
    data: Option<&'a RawValue>,
    results: Option<&'a str>,
    /// Whether a ranking is wanted.
    ranks: bool,
    /// Whether what is said is wanted.
    hears: bool,
    has_result: bool,
    has_error: bool,
}

/// With these names, and the last member of this name in this form.
fn told(
    body: &Bytes,
    (text, members): (&str, &[Member<'_>]),
    (id, model): (&str, &str),
    mut list: Option<(&str, String)>,
) -> Bytes {
    let last = list.as_ref().and_then(|(key, _)| members.iter().rposition(|member| member.key == *key));
    let changes: Vec<Change> = members
        .iter()
        .enumerate()
        .map(|(at, member)| match member.key.as_ref() {
            _ if Some(at) == last => list.take().map_or(Change::Keep, |(_, value)| Change::Set(value)),
            "id" => Change::to_text(member, id),
            "model" => Change::to_text(member, model),
            _ => Change::Keep,
        })
        .collect();
    let missing = |key: &str| members.iter().all(|member| member.key != key);
    let mut added = Vec::new();
    if missing("id") {
        added.push(("id", quoted(id)));
    }
    if missing("model") {
        added.push(("model", quoted(model)));
    }
    if added.is_empty() && changes.iter().all(|change| matches!(change, Change::Keep)) {
        return body.clone();
    }
    splice(text, members, &changes, &added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::{Encoding, Ranking, Vectors};

    #[test]
    fn names_are_set_and_usage_read() {
        let body = Bytes::from_static(
            br#"{"id":"cmpl-9","model":"/m/a.gguf","choices":[{"x":1.0}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#,
        );
        let answer = read_answer(&body, "chatcmpl_1", "qwen").unwrap();
        let expected = r#"{"id":"chatcmpl_1","model":"qwen","choices":[{"x":1.0}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#;
        assert_eq!(answer.body, expected);
        assert_eq!((answer.usage, answer.text_bytes), (Some(Usage::of(2, 1)), 0));
        assert_eq!(rewrite_answer(&body, "chatcmpl_1", "qwen"), expected);
    }

    #[test]
    fn text_is_measured_where_the_server_did_not_count_it() {
        let choices = r#""choices":[{"message":{"content":"four"}}]"#;
        for (usage, expected) in [
            ("", 4),
            (r#","usage":{"prompt_tokens":2}"#, 4),
            (r#","usage":{"prompt_tokens":2,"completion_tokens":0}"#, 4),
            (r#","usage":{"prompt_tokens":2,"completion_tokens":1}"#, 0),
        ] {
            let body = Bytes::from(format!("{{{choices}{usage}}}"));
            assert_eq!(read_answer(&body, "i", "m").unwrap().text_bytes, expected, "{usage}");
        }
    }

    #[test]
    fn embeddings_have_no_completion() {
        let body = Bytes::from_static(br#"{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":2}}"#);
        let answer = read_answer(&body, "i", "m").unwrap();
        assert_eq!((answer.usage, answer.text_bytes), (Some(Usage::of(2, 0)), 0));
    }

    #[test]
    fn vectors_are_told_as_they_were_asked_for() {
        let read = |body: &'static str, encoding| {
            let wanted = Wanted::Vectors(Vectors { inputs: 1, encoding });
            read_wanted(&Bytes::from_static(body.as_bytes()), ("i", "m"), (wanted, b""))
        };
        let answer = read(
            r#"{"id":"i", "data" : [{"index":0,"embedding":[1.0]}],"model":"m","usage":{"total_tokens":2}}"#,
            Encoding::Base64,
        )
        .unwrap();
        let expected =
            r#"{"id":"i", "data" : [{"index":0,"embedding":"AACAPw=="}],"model":"m","usage":{"total_tokens":2}}"#;
        assert_eq!((std::str::from_utf8(&answer.body).unwrap(), answer.usage), (expected, Some(Usage::of(2, 0))));
        let body = Bytes::from_static(br#"{"id":"i","model":"m","data":[{"index":0,"embedding":[1.0]}]}"#);
        let wanted = Wanted::Vectors(Vectors { inputs: 1, encoding: Encoding::Float });
        assert_eq!(read_wanted(&body, ("i", "m"), (wanted, b"")).unwrap().body.as_ptr(), body.as_ptr());
        for none in [r#"{"data":[]}"#, r#"{"choices":[]}"#, r#"{"data":[{"embedding":1}]}"#] {
            assert_eq!(read(none, Encoding::Float), Err(AnswerError::NotAnAnswer), "{none}");
        }
        assert!(matches!(read(r#"{"error":"boom"}"#, Encoding::Float), Err(AnswerError::Refused(_))));
    }

    #[test]
    fn rankings_are_read_in_every_server_s_wrapping() {
        let read = |body: &str| {
            let wanted = Wanted::Ranking(Ranking { documents: 1, best: 1, returns_documents: false });
            read_wanted(&Bytes::copy_from_slice(body.as_bytes()), ("i", "m"), (wanted, b"{}"))
        };
        let told = |usage: &str| {
            format!(
                r#"{{"id":"i","object":"list","model":"m","results":[{{"index":0,"relevance_score":0.5}}]{usage}}}"#
            )
        };
        let counted = r#","usage":{"prompt_tokens":9,"total_tokens":9}"#;
        for (body, usage) in [
            (
                r#"{"id":"rerank-1","model":"x","usage":{"prompt_tokens":9,"total_tokens":9},
                    "results":[{"index":0,"document":{"text":"a"},"relevance_score":0.5}]}"#,
                counted,
            ),
            (
                r#"{"model":"x","object":"list","usage":{"total_tokens":9},"results":[{"index":0,"relevance_score":0.5}]}"#,
                counted,
            ),
            (
                r#"{"id":"x","results":[{"index":0,"relevance_score":0.5}],"meta":{"billed_units":{"search_units":1}}}"#,
                "",
            ),
            (r#"{"object":"list","data":[{"relevance_score":0.5,"index":0}],"usage":{"total_tokens":9}}"#, counted),
            (r#" [{"score":0.5,"document":"a","index":0,"meta_info":{}}]"#, ""),
            (r#"[{"index":0,"score":0.5}]"#, ""),
        ] {
            let answer = read(body).unwrap();
            assert_eq!(answer.body, told(usage), "{body}");
            assert_eq!(answer.usage, (!usage.is_empty()).then_some(Usage::of(9, 0)), "{body}");
        }
        for none in ["[]", "{}", "[0]", r#"{"results":{}}"#, r#"[{"index":0,"score":0.5}"#, "<html>"] {
            assert_eq!(read(none), Err(AnswerError::NotAnAnswer), "{none}");
        }
        assert!(matches!(read(r#"{"object":"error","message":"no"}"#), Err(AnswerError::Refused(_))));
    }

    #[test]
    fn missing_names_are_added() {
        let body = Bytes::from_static(br#"{"choices":[]}"#);
        assert_eq!(rewrite_answer(&body, "i", "m"), r#"{"choices":[],"id":"i","model":"m"}"#);
        let body = Bytes::from_static(br#"{"id":"embd-1","data":[],"model":"x"}"#);
        assert_eq!(rewrite_answer(&body, "i", "m"), r#"{"id":"i","data":[],"model":"m"}"#);
    }

    #[test]
    fn an_error_with_a_good_status_is_an_error() {
        let body = Bytes::from_static(br#"{"error":{"message":"at http://10.0.0.1:80 no","code":"c"}}"#);
        let Err(AnswerError::Refused(error)) = read_answer(&body, "i", "m") else { panic!("taken as answer") };
        assert_eq!((error.message.as_str(), error.code.as_deref()), ("at [address] no", Some("c")));
        let fine = Bytes::from_static(br#"{"error":null,"choices":[]}"#);
        assert!(read_answer(&fine, "i", "m").is_ok());
        for none in ["<html>", "[]", "{}", r#"{"error":""}"#, r#"{"error":{},"choices":null}"#, r#"{"id":"x"}"#] {
            let read = read_answer(&Bytes::copy_from_slice(none.as_bytes()), "i", "m");
            assert_eq!(read, Err(AnswerError::NotAnAnswer), "{none}");
        }
        for flat in [r#"{"object":"error","message":"boom","code":500}"#, r#"{"detail":"boom"}"#, r#"{"error":"boom"}"#]
        {
            let Err(AnswerError::Refused(error)) = read_answer(&Bytes::copy_from_slice(flat.as_bytes()), "i", "m")
            else {
                panic!("taken as answer: {flat}")
            };
            assert_eq!(error.message, "boom");
        }
        for said in
            [r#"{"error":"","choices":[]}"#, r#"{"error":{"code":1},"choices":[]}"#, r#"{"message":"x","data":[]}"#]
        {
            assert!(read_answer(&Bytes::copy_from_slice(said.as_bytes()), "i", "m").is_ok(), "{said}");
        }
    }
}
