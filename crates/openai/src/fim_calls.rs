//! Holds: Mistral's calls for the middle of a text, asked as text completions, and the answers in its shape.

use std::fmt::Write;

use bytes::Bytes;

use crate::{
    AskedAs, Code, ErrorBody, InvalidRequest, Names, Retelling, Telling,
    closing::usage_json,
    heard::{Finish, Heard, hear},
    members::quoted,
    peek::unreadable,
    rewrite::{Change, Member, members_of, splice},
    sse,
    usage::Usage,
};

/// Tokens of an answer where a call states no limit: some forty lines. Completions would stop at sixteen.
pub const FIM_DEFAULT_MAX_TOKENS: u32 = 512;

/// Reads the body of a `/v1/fim/completions`. What completions refuse is left to them.
pub fn fim_as_completion(body: &Bytes) -> Result<AskedAs, InvalidRequest> {
    let Some((text, members)) = members_of(body) else { return Err(unreadable(body)) };
    if members.iter().any(|member| member.key == "prompt" && !member.value.get().starts_with('"')) {
        return Err(InvalidRequest::at("prompt", "`prompt` must be a string"));
    }
    let stated = |name: &str| {
        let found = members.iter().find(|member| member.key == name);
        found.map(|member| member.value.get()).filter(|value| *value != "null")
    };
    let change = |member: &Member<'_>| match member.key.as_ref() {
        // Goes on by its name there.
        "random_seed" => Change::Remove,
        "seed" if stated("random_seed").is_some() => Change::Remove,
        "stream_options" => Change::Remove,
        "max_tokens" if member.value.get() == "null" => Change::Remove,
        _ => Change::Keep,
    };
    let changes: Vec<Change> = members.iter().map(change).collect();
    let mut added = Vec::new();
    if let Some(seed) = stated("random_seed") {
        added.push(("seed", seed.to_owned()));
    }
    if stated("max_tokens").is_none() && stated("max_completion_tokens").is_none() {
        added.push(("max_tokens", FIM_DEFAULT_MAX_TOKENS.to_string()));
    }
    if stated("stream") == Some("true") {
        added.push(("stream_options", "{\"include_usage\":true}".to_owned()));
    }
    Ok(AskedAs { body: splice(text, &members, &changes, &added), retelling: Box::new(Middle) })
}

/// Tells text completions as Mistral's chats.
#[derive(Debug)]
struct Middle;

impl Retelling for Middle {
    fn whole(&self, answer: &[u8], names: Names<'_>) -> Bytes {
        let heard = hear(answer);
        let mut choices = String::new();
        for choice in &heard.choices {
            let comma = if choices.is_empty() { "" } else { "," };
            let (index, content) = (choice.index, quoted(&choice.content));
            let reason = reason_of(choice.finish.unwrap_or(Finish::Stop));
            let _ = write!(
                choices,
                "{comma}{{\"index\":{index},\"message\":{{\"role\":\"assistant\",\"content\":{content}}},\
                 \"finish_reason\":{reason}}}"
            );
        }
        Head::new("chat.completion", names).with(&choices, heard.usage).into()
    }

    fn stream(&self, names: Names<'_>) -> Box<dyn Telling> {
        Box::new(Stream { head: Head::new("chat.completion.chunk", names), begun: Vec::new(), ends: String::new() })
    }

    fn member<'a>(&self, member: &'a str) -> &'a str {
        if member == "seed" { "random_seed" } else { member }
    }
}

/// Mistral has no word for filtered content; what came of it came to its end.
const fn reason_of(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "\"length\"",
        Finish::Stop | Finish::ToolCalls | Finish::ContentFilter => "\"stop\"",
    }
}

/// What every object of an answer begins with.
struct Head(String);

impl Head {
    fn new(object: &str, names: Names<'_>) -> Self {
        let (id, model, created) = (quoted(names.id), quoted(names.model), names.created);
        Self(format!("{{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model}"))
    }

    fn with(&self, choices: &str, usage: Option<Usage>) -> String {
        let usage = usage.map(|usage| format!(",\"usage\":{}", usage_json(&usage, true))).unwrap_or_default();
        format!("{},\"choices\":[{choices}]{usage}}}", self.0)
    }
}

/// A stream whose last chunk has the ends and the usage, as Mistral's has both.
struct Stream {
    head: Head,
    /// Choices whose role was told.
    begun: Vec<u64>,
    /// Ends that wait for the usage.
    ends: String,
}

impl Stream {
    fn deltas(&mut self, heard: &Heard<'_>) -> String {
        let mut choices = String::new();
        for choice in &heard.choices {
            let (index, is_new) = (choice.index, !self.begun.contains(&choice.index));
            if is_new {
                self.begun.push(index);
            }
            if is_new || !choice.content.is_empty() {
                let comma = if choices.is_empty() { "" } else { "," };
                let role = if is_new { "\"role\":\"assistant\"," } else { "" };
                let content = quoted(&choice.content);
                let _ = write!(
                    choices,
                    "{comma}{{\"index\":{index},\"delta\":{{{role}\"content\":{content}}},\"finish_reason\":null}}"
                );
            }
            if let Some(finish) = choice.finish {
                let comma = if self.ends.is_empty() { "" } else { "," };
                let reason = reason_of(finish);
                let _ = write!(
                    self.ends,
                    "{comma}{{\"index\":{index},\"delta\":{{\"content\":\"\"}},\"finish_reason\":{reason}}}"
                );
            }
        }
        choices
    }

    fn framed(&self, choices: &str, usage: Option<Usage>) -> Bytes {
        sse::frame(self.head.with(choices, usage).as_bytes())
    }
}

impl Telling for Stream {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        let heard = hear(data);
        let choices = self.deltas(&heard);
        let mut told = Vec::new();
        if !choices.is_empty() {
            told.extend_from_slice(&self.framed(&choices, None));
        }
        // Counts may come all along; those with or behind the ends are the last.
        if heard.usage.is_some() && !self.ends.is_empty() {
            let ends = std::mem::take(&mut self.ends);
            told.extend_from_slice(&self.framed(&ends, heard.usage));
        }
        told.into()
    }

    fn done(&mut self) -> Bytes {
        let mut told = Vec::new();
        if !self.ends.is_empty() {
            let ends = std::mem::take(&mut self.ends);
            told.extend_from_slice(&self.framed(&ends, None));
        }
        told.extend_from_slice(b"data: [DONE]\n\n");
        told.into()
    }

    fn failed(&mut self, code: Code, message: &str) -> Bytes {
        let error = ErrorBody { message, kind: code.kind(), param: None, code: Some(code.name()) };
        sse::frame(error.to_json().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::CallKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::peek;

    const NAMES: Names<'static> = Names { id: "cmpl_1", model: "m", created: 7, tier: None };

    fn asked(body: &str) -> String {
        let asked = fim_as_completion(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        String::from_utf8(asked.body.to_vec()).unwrap()
    }

    #[test]
    fn a_call_is_asked_as_a_completion() {
        let body = r#"{"model":"m","prompt":"a","suffix":"b","max_tokens":8,"temperature":0,"top_p":1.0,"stop":["x"],"min_tokens":1}"#;
        assert_eq!(asked(body), body);
        let peeked = peek(CallKind::Completions, asked(body).as_bytes()).unwrap();
        assert!(peeked.has_suffix && peeked.max_output == Some(8));
        assert_eq!(asked(r#"{"prompt":"a","random_seed":5,"seed":4}"#), r#"{"prompt":"a","seed":5,"max_tokens":512}"#);
        assert_eq!(
            asked(r#"{"random_seed":null,"prompt":"a","max_tokens":null,"suffix":null}"#),
            r#"{"prompt":"a","suffix":null,"max_tokens":512}"#
        );
        assert_eq!(
            asked(r#"{"prompt":"a","stream":true,"max_tokens":1,"stream_options":{"include_usage":false}}"#),
            r#"{"prompt":"a","stream":true,"max_tokens":1,"stream_options":{"include_usage":true}}"#
        );
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let refused = |body: &[u8]| fim_as_completion(&Bytes::copy_from_slice(body)).unwrap_err();
        assert_eq!(refused(br#"{"prompt":["a"]}"#).param.as_deref(), Some("prompt"));
        assert_eq!(refused(b"{\"a\" 1}").position.unwrap().column, 6);
        assert!(refused(b"[]").message.contains("object") && refused(b"\xff").message.contains("UTF-8"));
        assert_eq!(Middle.member("seed"), "random_seed");
        assert_eq!(Middle.member("suffix"), "suffix");
    }

    #[test]
    fn a_whole_answer_is_a_chat() {
        let answer = json!({ "id": "x", "object": "text_completion", "choices": [
            { "index": 0, "text": "a\n\"b\"", "logprobs": null, "finish_reason": "length" },
            { "index": 1, "text": "", "finish_reason": "stop" } ],
            "usage": { "prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6 } });
        let told: Value = serde_json::from_slice(&Middle.whole(answer.to_string().as_bytes(), NAMES)).unwrap();
        let choice = |index: u32, text: &str, reason: &str| json!({ "index": index, "message": { "role": "assistant", "content": text }, "finish_reason": reason });
        assert_eq!(
            told,
            json!({ "id": "cmpl_1", "object": "chat.completion", "created": 7, "model": "m",
                "choices": [choice(0, "a\n\"b\"", "length"), choice(1, "", "stop")],
                "usage": { "prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6 } })
        );
    }

    fn events(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let data = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }

    #[test]
    fn a_stream_ends_with_reason_and_usage_at_once() {
        let mut telling = Middle.stream(NAMES);
        let mut told = Vec::new();
        for data in [
            r#"{"choices":[{"index":0,"text":"a","finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"text":"b","finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}"#,
        ] {
            told.extend(events(&telling.chunk(data.as_bytes())));
        }
        told.extend(events(&telling.done()));
        let delta = |at: usize| &told[at]["choices"][0]["delta"];
        assert_eq!((delta(0), delta(1)), (&json!({ "role": "assistant", "content": "a" }), &json!({ "content": "b" })));
        assert_eq!(told[1]["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(
            told[2],
            json!({ "id": "cmpl_1", "object": "chat.completion.chunk", "created": 7, "model": "m",
                "choices": [{ "index": 0, "delta": { "content": "" }, "finish_reason": "stop" }],
                "usage": { "prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6 } })
        );
        assert_eq!(told[3..], ["[DONE]"]);
    }

    #[test]
    fn a_stream_without_usage_still_ends_and_one_that_fails_says_so() {
        let mut telling = Middle.stream(NAMES);
        telling.chunk(br#"{"choices":[{"index":0,"text":"a","finish_reason":"length"}]}"#);
        let told = events(&telling.done());
        assert_eq!((&told[0]["choices"][0]["finish_reason"], told.len()), (&json!("length"), 2));
        let failed = events(&Middle.stream(NAMES).failed(Code::UpstreamError, "it broke"));
        let expected =
            json!({ "message": "it broke", "type": "server_error", "param": null, "code": "upstream_error" });
        assert_eq!(failed, [json!({ "error": expected })]);
    }
}
