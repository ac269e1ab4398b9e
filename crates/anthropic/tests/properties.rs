//! Holds: properties: no body is too odd, and a stream is told as its whole answer however it is cut.

#![expect(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod accumulated;

use accumulated::accumulated;
use batchin_anthropic::ask_as_chat;
use batchin_openai::{Names, Retelling};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NAMES: Names<'static> = Names { id: "msg_1", model: "m", created: 7, tier: None };

fn retelling() -> Box<dyn Retelling> {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    ask_as_chat(body.as_bytes()).unwrap().retelling
}

/// Names and words that requests are made of.
fn word() -> impl Strategy<Value = String> {
    let words = "model max_tokens messages role content user assistant system type text image document tool_use tool_result \
                 thinking source base64 url media_type data image/png application/pdf id name input tools input_schema \
                 custom tool_choice auto any tool tool_use_id is_error stop_sequences metadata user_id output_config effort \
                 low format json_schema schema stream search_result title choices delta tool_calls index function \
                 arguments usage é \" \\";
    prop::sample::select(words.split_whitespace().map(String::from).collect::<Vec<_>>())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..6)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A block that may be one of any kind.
fn block() -> impl Strategy<Value = Value> {
    let kinds =
        ["text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result"];
    let members = (prop::sample::select(kinds.to_vec()), word(), value(), value(), word());
    members.prop_map(|(kind, text, content, source, id)| {
        json!({
            "type": kind, "text": text, "thinking": text, "content": content, "source": source, "id": id, "name": id,
            "title": text, "tool_use_id": id, "input": {},
        })
    })
}

/// A text in pieces.
fn pieces() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-zé\"\\\\\n{}]{0,3}", 0..4)
}

/// Names and arguments of calls, each in its pieces.
fn calls() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    let members = prop::collection::vec(("[a-c}\"]{1,2}", "[a-zé\"\\\\{}]{0,4}"), 0..3);
    let call = ("[a-z]{1,3}", members, any::<bool>(), 1_usize..5).prop_map(|(name, members, is_silent, step)| {
        let members: Map<String, Value> = members.into_iter().map(|(key, text)| (key, text.into())).collect();
        let arguments: Vec<char> = Value::from(members).to_string().chars().collect();
        let silent = if is_silent { &[][..] } else { &arguments[..] };
        (name, silent.chunks(step).map(String::from_iter).collect())
    });
    prop::collection::vec(call, 0..4)
}

fn delta(delta: &Value) -> String {
    json!({ "choices": [{ "index": 0, "delta": delta }] }).to_string()
}

/// The chunks of the calls; what comes next is chosen by `turns`.
fn call_chunks(calls: &[(String, Vec<String>)], turns: &[usize]) -> Vec<String> {
    let part = |index: usize, id: Option<String>, name: Option<&str>, arguments: &str| {
        delta(
            &json!({ "tool_calls": [{ "index": index, "id": id, "function": { "name": name, "arguments": arguments } }] }),
        )
    };
    let mut chunks = Vec::new();
    let mut waiting = calls.iter().enumerate();
    let mut growing: Vec<(usize, std::slice::Iter<'_, String>)> = Vec::new();
    let mut turns = turns.iter().cycle();
    loop {
        let turn = turns.next().copied().unwrap_or(0);
        growing.retain(|(_, parts)| parts.len() > 0);
        if growing.is_empty() || turn % 3 == 0 {
            match waiting.next() {
                Some((index, (name, parts))) => {
                    chunks.push(part(index, Some(format!("c{index}")), Some(name), ""));
                    growing.push((index, parts.iter()));
                }
                None if growing.is_empty() => return chunks,
                None => {}
            }
        }
        let at = turn % growing.len();
        let (index, parts) = &mut growing[at];
        chunks.extend(parts.next().map(|arguments| part(*index, None, None, arguments)));
    }
}

proptest! {
    #[test]
    fn no_body_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..64), body in value(), blocks in prop::collection::vec(block(), 0..4), is_user in any::<bool>()) {
        let _ = ask_as_chat(&bytes);
        let role = if is_user { "user" } else { "assistant" };
        let mut whole = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": role, "content": blocks }] });
        for (key, value) in body.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        for body in [body, whole] {
            if let Ok(asked) = ask_as_chat(body.to_string().as_bytes()) {
                let chat: Value = serde_json::from_slice(&asked.body).unwrap();
                prop_assert!(!chat["messages"].as_array().unwrap().is_empty());
            }
        }
    }

    #[test]
    fn no_answer_is_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..64), chunks in prop::collection::vec(value(), 0..5)) {
        let retelling = retelling();
        let mut telling = retelling.stream(NAMES);
        let mut out = telling.chunk(&bytes).to_vec();
        for chunk in &chunks {
            let message: Value = serde_json::from_slice(&retelling.whole(chunk.to_string().as_bytes(), NAMES)).unwrap();
            prop_assert_eq!(&message["type"], "message");
            let wrapped = json!({ "choices": [{ "delta": chunk }] }).to_string();
            out.extend(telling.chunk(wrapped.as_bytes()));
        }
        out.extend(telling.done());
        accumulated(std::str::from_utf8(&out).unwrap());
    }

    #[test]
    fn a_stream_is_told_as_its_whole_answer(
        thoughts in pieces(), texts in pieces(), refusals in pieces(), calls in calls(),
        turns in prop::collection::vec(0_usize..12, 1..20),
        reason in prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter"]),
    ) {
        let retelling = retelling();
        let mut chunks: Vec<String> = thoughts.iter().map(|text| delta(&json!({ "reasoning_content": text }))).collect();
        chunks.extend(texts.iter().map(|text| delta(&json!({ "content": text }))));
        chunks.extend(refusals.iter().map(|text| delta(&json!({ "refusal": text }))));
        chunks.extend(call_chunks(&calls, &turns));
        let usage = json!({ "prompt_tokens": 9, "completion_tokens": 5 });
        chunks.push(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }], "usage": usage }).to_string());
        let listed = calls.iter().enumerate();
        let listed: Vec<Value> = listed.map(|(index, (name, parts))| {
            json!({ "id": format!("c{index}"), "function": { "name": name, "arguments": parts.concat() } })
        }).collect();
        let message = json!({ "reasoning": thoughts.concat(), "content": texts.concat(), "refusal": refusals.concat(), "tool_calls": listed });
        let chat = json!({ "choices": [{ "index": 0, "message": message, "finish_reason": reason }], "usage": usage }).to_string();

        let mut telling = retelling.stream(NAMES);
        let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| telling.chunk(chunk.as_bytes())).collect();
        out.extend(telling.done());
        let whole: Value = serde_json::from_slice(&retelling.whole(chat.as_bytes(), NAMES)).unwrap();
        prop_assert_eq!(accumulated(std::str::from_utf8(&out).unwrap()), whole);
    }
}
