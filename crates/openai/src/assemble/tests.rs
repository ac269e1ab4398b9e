use serde_json::{Value, json};

use super::*;

const MOST: usize = 1024 * 1024;

fn assembler(call: CallKind) -> Assembler {
    Assembler::new(call, "chatcmpl_1", "qwen", MOST)
}

#[track_caller]
fn assembled(call: CallKind, chunks: &[Value]) -> Value {
    let mut answer = assembler(call);
    for chunk in chunks {
        answer.take(chunk.to_string().as_bytes()).unwrap();
    }
    serde_json::from_slice(&answer.finish().unwrap().body).unwrap()
}

fn delta(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta}]})
}

#[test]
fn an_answer_of_vllm_is_put_together() {
    let chunk = |choices: Value| {
        let mut chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "/m/q", "system_fingerprint": null});
        chunk["choices"] = choices;
        chunk
    };
    let mut last = chunk(json!([]));
    last["usage"] = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    last["system_fingerprint"] = json!("f");
    let chunks = [
        chunk(json!([{"index": 1, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}])),
        chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}])),
        chunk(json!([{"index": 0, "delta": {"content": "a\"\n"}, "logprobs": {"content": [{"token": "a"}]}}])),
        chunk(json!([{"index": 1, "delta": {"content": "é"}, "finish_reason": "length", "stop_reason": null}])),
        chunk(
            json!([{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}], "refusal": null},
            "finish_reason": "stop", "stop_reason": 17}]),
        ),
        last,
    ];
    let expected = json!({
        "id": "chatcmpl_1", "object": "chat.completion", "created": 7, "model": "qwen",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a\"\nb"},
             "logprobs": {"content": [{"token": "a"}, {"token": "b"}], "refusal": null}, "finish_reason": "stop", "stop_reason": 17},
            {"index": 1, "message": {"role": "assistant", "content": "é"}, "logprobs": null, "finish_reason": "length", "stop_reason": null},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, "system_fingerprint": "f",
    });
    assert_eq!(assembled(CallKind::Chat, &chunks), expected);
}

#[test]
fn tool_calls_are_told_apart_by_index_and_by_id() {
    let calls = |calls: Value| delta(&json!({ "tool_calls": calls }));
    let named = |index: Value, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let more = |index: Value, id: Value, arguments: &str| json!({"index": index, "id": id, "function": {"name": null, "arguments": arguments}});
    let whole = |chunks: &[Value]| {
        let message = &assembled(CallKind::Chat, chunks)["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        message["tool_calls"].clone()
    };
    let expected = json!([
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]);
    let opening = delta(&json!({"role": "assistant", "content": ""}));
    let openai = [
        opening.clone(),
        calls(json!([named(json!(0), "a", "f", "")])),
        calls(json!([more(json!(0), Value::Null, "{\"x\""), named(json!(1), "b", "g", "{")])),
        calls(json!([more(json!(1), Value::Null, "}"), more(json!(0), Value::Null, ":1}")])),
    ];
    assert_eq!(whole(&openai), expected);
    // lmdeploy and old SGLang number each call 0 and repeat or empty the id.
    let all_zero = [
        opening,
        calls(json!([named(json!(0), "a", "f", "")])),
        calls(json!([more(json!(0), json!("a"), "{\"x\":1}")])),
        calls(json!([named(json!(0), "b", "g", "")])),
        calls(json!([more(json!(0), json!(""), "{}")])),
    ];
    assert_eq!(whole(&all_zero), expected);
    let unnumbered = [calls(json!([named(Value::Null, "a", "f", "{\"x\":1}"), named(Value::Null, "b", "g", "{}")]))];
    assert_eq!(whole(&unnumbered), expected);
}

#[test]
fn an_odd_end_is_told_in_openai_s_words() {
    let end = |call, said: Value, reason: &str| {
        let mut choice = json!({"index": 0, "finish_reason": reason});
        choice.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        assembled(call, &[json!({"choices": [choice]})])["choices"][0]["finish_reason"].clone()
    };
    for (reason, chat, completion) in
        [("abort", "stop", "stop"), ("repetition", "length", "length"), ("tool_calls", "tool_calls", "stop")]
    {
        assert_eq!(end(CallKind::Chat, json!({"delta": {"content": "a"}}), reason), chat);
        assert_eq!(end(CallKind::Completions, json!({"text": "a"}), reason), completion);
    }
    let failed = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}).to_string();
    assert!(assembler(CallKind::Chat).take(failed.as_bytes()).unwrap().error.is_some());
}

#[test]
fn reasoning_refusals_and_old_functions_are_kept() {
    let message = |deltas: &[Value]| {
        let chunks: Vec<Value> = deltas.iter().map(delta).collect();
        assembled(CallKind::Chat, &chunks)["choices"][0]["message"].clone()
    };
    assert_eq!(
        message(&[
            json!({"role": "assistant", "content": "", "reasoning_content": null}),
            json!({"reasoning_content": "th"}),
            json!({"reasoning_content": "ink"}),
            json!({"content": "a", "reasoning_content": null}),
        ]),
        json!({"role": "assistant", "content": "a", "reasoning_content": "think", "reasoning": "think"})
    );
    assert_eq!(
        message(&[json!({"content": "", "refusal": null}), json!({"refusal": "n"}), json!({"refusal": "o"})]),
        json!({"role": "assistant", "content": null, "refusal": "no"})
    );
    assert_eq!(
        message(&[
            json!({"function_call": {"name": "f", "arguments": ""}}),
            json!({"function_call": {"arguments": "{}"}})
        ]),
        json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}})
    );
    assert_eq!(message(&[json!({"role": "assistant", "content": ""})])["content"], "");
    assert_eq!(message(&[json!({"role": "assistant", "content": null})])["content"], Value::Null);
    // Halves of a surrogate pair meet again.
    let mut answer = assembler(CallKind::Chat);
    for half in ["\\ud83d", "\\ude00"] {
        answer.take(format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{half}"}}}}]}}"#).as_bytes()).unwrap();
    }
    let body: Value = serde_json::from_slice(&answer.finish().unwrap().body).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "\u{1f600}");
}

#[test]
fn completions_join_their_lists() {
    let chunk = |text: &str, offset: u32| {
        let logprobs =
            json!({"tokens": [text], "token_logprobs": [-0.5], "text_offset": [offset], "top_logprobs": null});
        json!({"created": 1, "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": null}]})
    };
    let end = json!({"created": 2, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage":
        {"prompt_tokens": 1, "completion_tokens": 2}});
    let whole = assembled(CallKind::Completions, &[chunk("a", 0), chunk("b", 1), end]);
    let logprobs =
        json!({"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.5], "text_offset": [0, 1], "top_logprobs": null});
    assert_eq!(whole["choices"], json!([{"index": 0, "text": "ab", "logprobs": logprobs, "finish_reason": "stop"}]));
    assert_eq!((&whole["object"], &whole["created"]), (&json!("text_completion"), &json!(2)));
}

#[test]
fn facts_are_those_of_a_stream_that_passes_through() {
    let chunks = [
        r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        r#"{"error":{"message":"boom at /a/b","code":500}}"#,
        r#"{"object":"error","message":"boom","code":500}"#,
        r#"{"error":null,"choices":null}"#,
        r#"{"error":"","choices":[{"index":"0","delta":{"content":"","finish_reason":""}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":""}],"usage":{"prompt_tokens":"?"}}"#,
        "{}",
    ];
    let mut answer = assembler(CallKind::Chat);
    for chunk in chunks {
        assert_eq!(answer.take(chunk.as_bytes()).unwrap(), ChunkFacts::of(chunk.as_bytes()).unwrap(), "{chunk}");
    }
    assert!(!answer.is_finished(), "one choice of two has ended");
    let whole = answer.finish().unwrap();
    assert_eq!((whole.usage.unwrap().completion_tokens, whole.text_bytes), (Some(2), 2));
    for bad in ["[DONE]", "", "{\"choices\":{}}", "{\"choices\":[1]}", "{} x", "{\"choices\":[{\"delta\":[]}]}"] {
        assert_eq!(assembler(CallKind::Chat).take(bad.as_bytes()), Err(AssembleError::NotAChunk), "{bad}");
    }
    assert!(assembler(CallKind::Chat).finish().is_err(), "no chunk, no answer");
}

#[test]
fn only_a_real_reason_ends_a_choice() {
    let chunk =
        |reason: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"a"}},"finish_reason":{reason}}}]}}"#);
    let mut answer = assembler(CallKind::Chat);
    for none in ["\"\"", "null", "\" \"", "\"null\"", "0"] {
        assert_eq!(answer.take(chunk(none).as_bytes()).unwrap().ends, 0, "{none}");
        assert!(!answer.is_finished(), "{none}");
    }
    assert_eq!(answer.take(chunk("\"stop\"").as_bytes()).unwrap().ends, 1);
    assert_eq!(answer.take(chunk("\"\"").as_bytes()).unwrap().ends, 0);
    assert!(answer.is_finished());
    let whole: Value = serde_json::from_slice(&answer.finish().unwrap().body).unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_whole_answer_among_the_events_is_taken() {
    let event = json!({"object": "chat.completion", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]});
    let whole = assembled(CallKind::Chat, std::slice::from_ref(&event));
    assert_eq!(
        whole["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "a"},
        "logprobs": null, "finish_reason": "stop"}])
    );
    let mut answer = assembler(CallKind::Chat);
    let facts = answer.take_whole(&event.to_string().into()).unwrap();
    assert_eq!((facts.ends, facts.text_bytes, answer.is_finished()), (u32::MAX, 1, true));
    let body: Value = serde_json::from_slice(&answer.finish().unwrap().body).unwrap();
    assert_eq!((&body["id"], &body["choices"]), (&json!("chatcmpl_1"), &event["choices"]));
}

#[test]
fn what_a_stream_alone_has_is_left_out() {
    let chunk =
        json!({"obfuscation": "xyz", "service_tier": "flex", "choices": [{"index": 0, "delta": {"content": "a"}}]});
    let whole = assembled(CallKind::Chat, &[chunk]);
    assert_eq!((whole.get("obfuscation"), &whole["service_tier"]), (None, &json!("flex")));
}

#[test]
fn memory_is_bounded_by_text_and_by_entries() {
    let until_full = |chunk: &dyn Fn(usize) -> String| {
        let mut answer = Assembler::new(CallKind::Chat, "i", "m", 100_000);
        let full = (0..100_000).position(|at| answer.take(chunk(at).as_bytes()) == Err(AssembleError::TooLarge));
        full.expect("the bound is noticed")
    };
    let text = until_full(&|_| format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "x".repeat(1_000)));
    assert!((95..=100).contains(&text), "{text}");
    assert!(until_full(&|at| format!(r#"{{"choices":[{{"index":{at}}}]}}"#)) <= 400);
    assert!(until_full(&|at| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{at}}}]}}}}]}}"#)) <= 400);
    assert!(until_full(&|at| format!(r#"{{"choices":[],"k{at}":1}}"#)) <= 1_600);
}

#[test]
fn chunks_that_are_alike_are_put_together_as_if_each_were_read() {
    let chat = |delta: &str, rest: &str| {
        format!(r#"{{"created":1,"choices":[{{"index":0,"delta":{{{delta}}},"logprobs":null{rest}}}],"usage":null}}"#)
    };
    let mut chunks: Vec<String> = [
        r#""role":"assistant","content":"""#,
        r#""content":"a""#,
        r#""content":"b\"""#,
        r#""content":"\u00e9""#,
        r#""content":"c""#,
        r#""reasoning":"d","refusal":null"#,
        r#""reasoning":"e","refusal":null"#,
        r#""content":null,"reasoning":"f""#,
        r#""content":"g""#,
    ]
    .iter()
    .map(|delta| chat(delta, ""))
    .collect();
    chunks.push(chat(r#""content":"h""#, r#","finish_reason":"stop""#));
    let (mut alike, mut each) = (assembler(CallKind::Chat), assembler(CallKind::Chat));
    for (at, chunk) in chunks.iter().enumerate() {
        let other = format!("{chunk}{}", " ".repeat(at));
        assert_eq!(alike.take(chunk.as_bytes()), each.take(other.as_bytes()), "{chunk}");
    }
    let (alike, each) = (alike.finish().unwrap(), each.finish().unwrap());
    assert_eq!(alike, each);
    let body: Value = serde_json::from_slice(&alike.body).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "ab\"écgh");
    assert_eq!(body["choices"][0]["message"]["reasoning"], "def");
    // The text of a completion goes on in the same way.
    let completion = |text: &str| json!({"choices": [{"index": 0, "text": text}]});
    let mut chunks = ["a", "b", "c"].map(completion).to_vec();
    chunks.push(json!({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}));
    assert_eq!(assembled(CallKind::Completions, &chunks)["choices"][0]["text"], "abc");
    // The bound holds for them too.
    let mut small = Assembler::new(CallKind::Completions, "i", "m", 600);
    let mut takes = (0..100).map(|_| small.take(completion("sixteen letters.").to_string().as_bytes()));
    assert!(takes.any(|taken| taken == Err(AssembleError::TooLarge)));
}

/// What a chunk changes beside its text is not lost where another chunk came between.
#[test]
fn a_chunk_is_alike_the_one_before_and_none_further_back() {
    let text =
        |text: &str, rest: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"{rest}}}}}]}}"#);
    let created = |at: u32, choices: &str| format!(r#"{{"created":{at},"choices":[{choices}]}}"#);
    let said = |text: &str| format!(r#"{{"index":0,"delta":{{"content":"{text}"}}}}"#);
    let ends = |delta: &str, reason: &str| {
        format!(r#"{{"choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":"{reason}"}}]}}"#)
    };
    let streams = [
        vec![created(1, &said("a")), created(2, ""), created(1, &said("b"))],
        vec![
            ends(r#""content":"a""#, "stop"),
            ends(r#""content":"b""#, "stop"),
            ends("", "length"),
            ends(r#""content":"c""#, "stop"),
        ],
        vec![text("a", r#","x":"""#), text("", r#","x":1"#), text("", r#","x":[1]"#), text("b", r#","x":"""#)],
    ];
    for stream in streams {
        let (mut alike, mut each) = (assembler(CallKind::Chat), assembler(CallKind::Chat));
        for (at, chunk) in stream.iter().enumerate() {
            let other = format!("{chunk}{}", " ".repeat(at));
            assert_eq!(alike.take(chunk.as_bytes()), each.take(other.as_bytes()), "{chunk}");
        }
        assert_eq!(alike.finish().unwrap(), each.finish().unwrap());
    }
}
