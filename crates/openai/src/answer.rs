//! Holds: what is read from a model server's whole answer and what is changed in it.
//!
//! The public id and model name replace the server's; all else passes through byte for byte.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{
    blank::says_something,
    error::{UpstreamError, upstream_error_message},
    members::{each_member, quoted, range_in},
    rewrite::{Change, Member, members_of, splice},
    said::choices_bytes,
    usage::{Usage, parse_usage},
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
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::NotAnAnswer)?;
    let mut members = Vec::with_capacity(16);
    let mut facts = Facts::default();
    each_member(text, |key, value| {
        match key.as_ref() {
            "usage" => facts.usage = parse_usage(value),
            "choices" => {
                facts.has_result = value.get().starts_with('[');
                facts.choices = Some(value.get());
            }
            "data" => (facts.has_result, facts.embeds) = (value.get().starts_with('['), true),
            "error" => facts.has_error |= says_something(value.get()),
            // Errors that have no member around them.
            "message" | "detail" => facts.has_error |= says_something(value.get()),
            "object" => facts.has_error |= value.get() == "\"error\"",
            _ => {}
        }
        members.push(Member { key, value, at: range_in(text, value.get()) });
        ControlFlow::Continue(())
    })
    .map_err(|_| AnswerError::NotAnAnswer)?;
    match (facts.has_result, facts.has_error) {
        (true, _) => {}
        (false, true) => return Err(AnswerError::Refused(upstream_error_message(500, body))),
        (false, false) => return Err(AnswerError::NotAnAnswer),
    }
    if let (true, Some(usage)) = (facts.embeds, &mut facts.usage) {
        usage.completion_tokens.get_or_insert(0);
    }
    let is_counted = facts.usage.is_some_and(|usage| usage.counts_completion());
    let text_bytes = facts.choices.filter(|_| !is_counted).map_or(0, choices_bytes);
    Ok(WholeAnswer { body: named(body, text, &members, id, model), usage: facts.usage, text_bytes })
}

/// Sets the top-level `id` and `model` of an answer or a stream chunk; other bytes stay, and so does a body that is
/// not a JSON object.
pub fn rewrite_answer(body: &Bytes, id: &str, model: &str) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    named(body, text, &members, id, model)
}

#[derive(Default)]
struct Facts<'a> {
    usage: Option<Usage>,
    choices: Option<&'a str>,
    has_result: bool,
    embeds: bool,
    has_error: bool,
}

fn named(body: &Bytes, text: &str, members: &[Member<'_>], id: &str, model: &str) -> Bytes {
    let changes: Vec<Change> = members
        .iter()
        .map(|member| match member.key.as_ref() {
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
