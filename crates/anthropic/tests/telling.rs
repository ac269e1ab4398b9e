//! Holds: answers of chats and the messages and events that they are told as.

#![expect(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod accumulated;

use accumulated::{accumulated, events};
use batchin_anthropic::ask_as_chat;
use batchin_openai::{Code, Names, Retelling};
use bytes::Bytes;
use serde_json::{Value, json};

const NAMES: Names<'static> = Names { id: "msg_1", model: "m", created: 7, tier: None };

fn retelling() -> Box<dyn Retelling> {
    let body = r#"{"model":"m","max_tokens":9,"stop_sequences":["END"],"messages":[{"role":"user","content":"hi"}]}"#;
    ask_as_chat(body.as_bytes()).unwrap().retelling
}

fn whole(chat: &Value) -> Value {
    serde_json::from_slice(&retelling().whole(chat.to_string().as_bytes(), NAMES)).unwrap()
}

/// What the chunks are told as, and the end.
fn told(chunks: &[Value]) -> String {
    let mut telling = retelling().stream(NAMES);
    let mut out: Vec<Bytes> = chunks.iter().map(|chunk| telling.chunk(chunk.to_string().as_bytes())).collect();
    out.push(telling.done());
    String::from_utf8(out.concat()).unwrap()
}

fn delta(delta: &Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
}

fn finish(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

fn usage() -> Value {
    json!({ "choices": [], "usage": { "prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": { "cached_tokens": 3 } } })
}

fn call(index: u64, id: Value, name: Value, arguments: &str) -> Value {
    delta(
        &json!({ "tool_calls": [{ "index": index, "id": id, "function": { "name": name, "arguments": arguments } }] }),
    )
}

fn answer(message: &Value, reason: &str) -> Value {
    let choice = json!({ "index": 0, "message": message, "finish_reason": reason });
    json!({ "choices": [choice], "usage": usage()["usage"] })
}

/// Checks content and reason of a whole answer, and that the chunks are told as the same message.
#[track_caller]
fn check(chat: &Value, chunks: &[Value], content: &Value, reason: &str) {
    let message = whole(chat);
    assert_eq!((&message["content"], message["stop_reason"].as_str()), (content, Some(reason)), "{chat}");
    assert_eq!(accumulated(&told(chunks)), message, "{chunks:?}");
}

#[test]
fn a_text_is_told_event_by_event() {
    let chunks = [
        delta(&json!({ "role": "assistant", "content": "" })),
        delta(&json!({ "content": "Hel" })),
        delta(&json!({ "content": "lo\n\"é\"" })),
        finish("stop"),
        usage(),
    ];
    let expected = r#"event: message_start
data: {"type":"message_start","message":{"type":"message","id":"msg_1","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo\n\"é\""}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

"#;
    assert_eq!(told(&chunks), expected);
    let chat = answer(&json!({ "role": "assistant", "content": "Hello\n\"é\"" }), "stop");
    check(&chat, &chunks, &json!([{ "type": "text", "text": "Hello\n\"é\"" }]), "end_turn");
}

#[test]
fn a_whole_answer_is_a_message() {
    let chat = answer(&json!({ "content": "a", "reasoning_content": "b" }), "stop");
    let bytes = retelling().whole(chat.to_string().as_bytes(), NAMES);
    let expected = r#"{"type":"message","id":"msg_1","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"b","signature":""},{"type":"text","text":"a"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"output_tokens":4}}"#;
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
}

#[test]
fn each_chunk_is_told_when_it_comes() {
    let mut telling = retelling().stream(NAMES);
    let mut names = |chunk: Value| -> Vec<String> {
        let told = telling.chunk(chunk.to_string().as_bytes());
        events(std::str::from_utf8(&told).unwrap()).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(delta(&json!({ "role": "assistant" }))), ["message_start"]);
    assert_eq!(names(delta(&json!({ "reasoning": "a" }))), ["content_block_start", "content_block_delta"]);
    assert_eq!(names(delta(&json!({ "reasoning": "b" }))), ["content_block_delta"]);
    let closing = ["content_block_delta", "content_block_stop", "content_block_start", "content_block_delta"];
    assert_eq!(names(delta(&json!({ "content": "c" }))), closing);
    assert_eq!(names(delta(&json!({ "content": "d" }))), ["content_block_delta"]);
    assert_eq!(names(delta(&json!({}))), [""; 0]);
    assert_eq!(names(call(0, json!("c0"), json!("f"), "{\"")), closing[1..].to_vec());
    assert_eq!(names(call(0, Value::Null, Value::Null, "a\":1}")), ["content_block_delta"]);
    assert_eq!(names(call(1, json!("c1"), json!("f"), "")), ["content_block_stop", "content_block_start"]);
    assert_eq!(names(finish("tool_calls")), [""; 0]);
}

#[test]
fn thoughts_are_a_block_of_their_own() {
    let chunks = [
        delta(&json!({ "reasoning_content": "let me" })),
        delta(&json!({ "reasoning_content": " see" })),
        delta(&json!({ "content": "yes" })),
        finish("length"),
        usage(),
    ];
    let chat = answer(&json!({ "content": "yes", "reasoning": "let me see" }), "length");
    let content =
        json!([{ "type": "thinking", "thinking": "let me see", "signature": "" }, { "type": "text", "text": "yes" }]);
    check(&chat, &chunks, &content, "max_tokens");
    let told = told(&chunks);
    assert!(told.contains(r#""delta":{"type":"signature_delta","signature":""}}"#), "{told}");
}

#[test]
fn calls_are_told_one_after_the_other() {
    let function = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let chat = answer(
        &json!({ "content": "ok", "tool_calls": [function("c0", "f", r#"{"a": "}"}"#), function("c1", "g", ""), function("c.2", "h", r#"{"b":[1]}"#)] }),
        "tool_calls",
    );
    let content = json!([
        { "type": "text", "text": "ok" },
        { "type": "tool_use", "id": "c0", "name": "f", "input": { "a": "}" } },
        { "type": "tool_use", "id": "c1", "name": "g", "input": {} },
        { "type": "tool_use", "id": "toolu_msg_1_2", "name": "h", "input": { "b": [1] } },
    ]);
    let null = || Value::Null;
    let in_turn = [
        delta(&json!({ "content": "ok" })),
        call(0, json!("c0"), json!("f"), ""),
        call(0, null(), null(), "{\"a\": \"}"),
        call(0, null(), null(), "\"}"),
        call(1, json!("c1"), json!("g"), ""),
        call(2, json!("c.2"), json!("h"), "{\"b\":[1]}"),
        finish("tool_calls"),
        usage(),
    ];
    check(&chat, &in_turn, &content, "tool_use");
    let interleaved = [
        delta(&json!({ "content": "o" })),
        call(0, json!("c0"), json!("f"), "{\"a\""),
        call(1, json!("c1"), json!("g"), ""),
        call(2, json!("c.2"), json!("h"), "{\"b\":"),
        call(0, null(), null(), ": \"}"),
        call(2, null(), null(), "[1]"),
        call(0, null(), null(), "\"}"),
        call(2, null(), null(), "}"),
        finish("stop"),
        usage(),
    ];
    let told = accumulated(&told(&interleaved));
    assert_eq!(told["content"][0], json!({ "type": "text", "text": "o" }));
    assert_eq!(told["content"].as_array().unwrap()[1..], content.as_array().unwrap()[1..]);
    assert_eq!(told["stop_reason"], "tool_use");
}

#[test]
fn a_text_within_a_call_waits() {
    let chunks = [
        call(0, json!("c0"), json!("f"), "{"),
        delta(&json!({ "content": "a" })),
        call(0, Value::Null, Value::Null, "}"),
        delta(&json!({ "content": "b" })),
        finish("tool_calls"),
    ];
    let content =
        json!([{ "type": "tool_use", "id": "c0", "name": "f", "input": {} }, { "type": "text", "text": "ab" }]);
    assert_eq!(accumulated(&told(&chunks))["content"], content);
}

#[test]
fn an_input_is_an_object_or_empty() {
    for arguments in ["", "null", "[1]", "\"x\"", "{\"a\":", "{\"a\" 1}", "x{}"] {
        let call = json!({ "id": "c", "function": { "name": "f", "arguments": arguments } });
        let message = whole(&answer(&json!({ "tool_calls": [call] }), "tool_calls"));
        assert_eq!(message["content"][0]["input"], json!({}), "{arguments}");
    }
    let call = json!({ "id": "c", "function": { "name": "f", "arguments": " {\"a\": 1e400} {}" } }).to_string();
    let chat = format!(r#"{{"choices":[{{"message":{{"tool_calls":[{call}]}}}}]}}"#);
    let bytes = retelling().whole(chat.as_bytes(), NAMES);
    assert!(std::str::from_utf8(&bytes).unwrap().contains(r#""input":{"a": 1e400}}"#), "{bytes:?}");
}

#[test]
fn a_structured_answer_is_its_text() {
    let chunks = [delta(&json!({ "content": "{\"a\":" })), delta(&json!({ "content": "1}" })), finish("stop"), usage()];
    let chat = answer(&json!({ "content": "{\"a\":1}" }), "stop");
    check(&chat, &chunks, &json!([{ "type": "text", "text": "{\"a\":1}" }]), "end_turn");
}

#[test]
fn a_stop_sequence_is_named_if_it_was_asked_for() {
    for (stopped_by, reason, named) in [("END", "stop_sequence", json!("END")), ("</s>", "end_turn", Value::Null)] {
        let ended = json!({ "choices": [{ "delta": {}, "finish_reason": "stop", "stop_reason": stopped_by }] });
        let chunks = [delta(&json!({ "content": "a" })), ended, usage()];
        let mut chat = answer(&json!({ "content": "a" }), "stop");
        chat["choices"][0]["matched_stop"] = json!(stopped_by);
        check(&chat, &chunks, &json!([{ "type": "text", "text": "a" }]), reason);
        assert_eq!(whole(&chat)["stop_sequence"], named);
    }
}

#[test]
fn a_refusal_is_told_as_text() {
    let chunks = [delta(&json!({ "refusal": "I ca" })), delta(&json!({ "refusal": "nnot" })), finish("stop"), usage()];
    let chat = answer(&json!({ "content": null, "refusal": "I cannot" }), "stop");
    check(&chat, &chunks, &json!([{ "type": "text", "text": "I cannot" }]), "refusal");
    let filtered = [finish("content_filter"), usage()];
    check(&answer(&json!({ "content": "" }), "content_filter"), &filtered, &json!([]), "refusal");
}

#[test]
fn what_says_nothing_is_a_message_without_content() {
    assert_eq!(whole(&json!({}))["content"], json!([]));
    let nothing = whole(&Value::Null);
    assert_eq!((&nothing["stop_reason"], &nothing["usage"]["output_tokens"]), (&json!("end_turn"), &json!(0)));
    assert_eq!(accumulated(&told(&[])), nothing);
    assert_eq!(
        accumulated(&told(&[Value::Null, json!({ "choices": [{ "index": 1, "delta": { "content": "x" } }] })])),
        nothing
    );
}

#[test]
fn counts_of_the_first_chunk_are_told_at_once() {
    let mut first = delta(&json!({ "content": "a" }));
    first["usage"] = json!({ "prompt_tokens": 5, "completion_tokens": 1 });
    let told = told(&[first, finish("stop"), usage()]);
    let events = events(&told);
    assert_eq!(events[0].1["message"]["usage"]["input_tokens"], 5);
    assert_eq!(events[events.len() - 2].1["usage"], whole(&answer(&json!({}), "stop"))["usage"]);
}

#[test]
fn a_failure_is_the_last_event() {
    let mut telling = retelling().stream(NAMES);
    let expected = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"try \\\"later\\\"\"}}\n\n";
    assert_eq!(telling.failed(Code::ServiceUnavailable, "try \"later\""), expected);
    let mut telling = retelling().stream(NAMES);
    let begun = telling.chunk(delta(&json!({ "content": "a" })).to_string().as_bytes());
    assert!(begun.starts_with(b"event: message_start\n"));
    assert_eq!(telling.failed(Code::ServiceUnavailable, "try \"later\""), expected);
}
