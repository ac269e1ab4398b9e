use super::*;
use crate::Usage;

#[track_caller]
fn facts(data: &str) -> ChunkFacts {
    ChunkFacts::of(data.as_bytes()).unwrap()
}

/// The data of the frames that these chunks become, in one stream.
#[track_caller]
fn relayed(include_usage: bool, chunks: &[&str]) -> Vec<String> {
    let mut relay = Relay::new("i", "m", include_usage);
    let frames = chunks.iter().map(|chunk| relay.frame(chunk.as_bytes()).unwrap().frame);
    frames.map(|frame| data(&frame)).collect()
}

/// What a client reads; empty for what it does not get.
#[track_caller]
fn data(frame: &[u8]) -> String {
    let frame = std::str::from_utf8(frame).unwrap();
    if frame.is_empty() {
        return String::new();
    }
    let data = frame.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    assert!(!data.contains(['\n', '\r']), "{data}");
    serde_json::from_str::<serde_json::Value>(data).unwrap();
    data.replace(r#","id":"i","model":"m"}"#, "}")
}

#[test]
fn deltas_are_counted_by_content_and_text_by_bytes() {
    let said = |choices: &str| {
        let facts = facts(&format!(r#"{{"choices":[{choices}]}}"#));
        (facts.deltas, facts.text_bytes)
    };
    assert_eq!(said(r#"{"delta":{"role":"assistant","content":""}}"#), (0, 0));
    assert_eq!(said(r#"{"delta":{"role":"assistant","content":null}}"#), (0, 0));
    assert_eq!(said(r#"{"delta":{"content":"é\n"}},{"delta":{"content":"b"}}"#), (2, 4));
    assert_eq!(said(r#"{"delta":{"reasoning":"ab","content":null}}"#), (1, 2));
    assert_eq!(said(r#"{"delta":{"reasoning_content":"ab","reasoning":"ab"}}"#), (1, 2));
    assert_eq!(said(r#"{"delta":{"tool_calls":[{"index":0}]}}"#), (1, 0));
    assert_eq!(said(r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}"#), (1, 3));
    assert_eq!(said(r#"{"delta":{"tool_calls":[]}}"#), (0, 0));
    assert_eq!(said(r#"{"text":"a"},{"text":""}"#), (1, 1));
    assert_eq!(said(r#"{"delta":null}"#), (0, 0));
}

#[test]
fn ends_are_told_apart() {
    let end = facts(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#);
    assert_eq!((end.ends, end.has_choices, end.usage, end.has_usage), (1, true, None, false));
    let usage = facts(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#);
    assert_eq!((usage.ends, usage.has_choices, usage.usage), (0, false, Some(Usage::of(1, 2))));
    let zero = facts(r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#);
    assert_eq!((zero.usage, zero.has_usage), (None, true));
    assert_eq!(facts(r#"{"error":null,"choices":null}"#), ChunkFacts::default());
    assert_eq!(facts("{}"), ChunkFacts::default());
    for bad in ["[DONE]", "", "{\"choices\":{}}", "{\"choices\":[1]}", "{} x", "{\"choices\":[{\"delta\":[]}]}"] {
        assert_eq!(ChunkFacts::of(bad.as_bytes()), Err(ChunkError::NotAChunk), "{bad}");
    }
}

#[test]
fn errors_are_told_from_empty_members() {
    for fine in ["\"\"", "{}", "null", "false", "[]", "\" \"", "{\"message\":\"\",\"code\":null}"] {
        let chunk = format!(r#"{{"error":{fine},"choices":[{{"delta":{{"content":"a"}}}}]}}"#);
        assert_eq!(facts(&chunk).error, None, "{fine}");
    }
    for (chunk, message) in [
        (r#"{"error":{"message":"boom at /a/b","code":500}}"#, "boom at [path]"),
        (r#"{"error":"boom"}"#, "boom"),
        (r#"{"error":"server_error","message":"boom"}"#, "boom"),
        (r#"{"error":true,"message":"boom"}"#, "boom"),
        (r#"{"object":"error","message":"boom","type":"InternalServerError","code":500}"#, "boom"),
        (r#"{"detail":"boom"}"#, "boom"),
        (r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"boom"}}"#, "boom"),
    ] {
        assert_eq!(facts(chunk).error.map(|error| error.message).as_deref(), Some(message), "{chunk}");
    }
}

#[test]
fn only_a_real_reason_ends_a_choice_and_once() {
    let mut relay = Relay::new("i", "m", false);
    let mut take = |choices: &str| {
        let chunk = relay.frame(format!(r#"{{"choices":[{choices}]}}"#).as_bytes()).unwrap();
        (chunk.facts.ends, relay.is_finished(), data(&chunk.frame))
    };
    let open = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#.to_owned();
    for none in ["\"\"", "null", "\" \"", "\"null\""] {
        let choice = format!(r#"{{"index":0,"delta":{{"content":"a"}},"finish_reason":{none}}}"#);
        assert_eq!(take(&choice), (0, false, open.clone()), "{none}");
    }
    assert_eq!(take(r#"{"index":1,"delta":{},"finish_reason":"stop"}"#).0, 1);
    assert_eq!(take(r#"{"index":1,"delta":{},"finish_reason":"stop"}"#).0, 0, "it had ended");
    let both = r#"{"index":0,"text":"","finish_reason":"length"},{"index":1,"text":"","finish_reason":"stop"}"#;
    let (ends, finished, _) = take(both);
    assert_eq!((ends, finished, relay.seen()), (1, true, 2));
    assert!(!Relay::new("i", "m", false).is_finished(), "no answer");
}

#[test]
fn frame_carries_the_public_names() {
    let framed = |data: &str| Relay::new("chatcmpl_1", "qwen", true).frame(data.as_bytes()).unwrap().frame;
    assert_eq!(
        framed(r#"{"id":"x","object":"o","model":"/m/q.gguf","choices":[{"delta":{"content":"a"}}]}"#),
        "data: {\"id\":\"chatcmpl_1\",\"object\":\"o\",\"model\":\"qwen\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
    );
    assert_eq!(
        framed(r#"{"model":"y","choices":[{}],"id":"x"}"#),
        "data: {\"model\":\"qwen\",\"choices\":[{}],\"id\":\"chatcmpl_1\"}\n\n"
    );
    assert_eq!(framed("{\"choices\":[{}]}"), "data: {\"choices\":[{}],\"id\":\"chatcmpl_1\",\"model\":\"qwen\"}\n\n");
    assert_eq!(
        framed("{\"id\":1,\n\"model\":2, \"choices\":[{}] }\n"),
        "data: {\"id\":\"chatcmpl_1\", \"model\":\"qwen\", \"choices\":[{}] }\n\n"
    );
}

#[test]
fn usage_leaves_only_when_it_was_asked_for() {
    let chunks = [
        r#"{"choices":[{"delta":{"content":"a"}}],"usage":null}"#,
        r#"{"usage": null ,"choices":[{"delta":{"content":"a"}}]}"#,
        r#"{"choices":[{"delta":{}}], "usage":{"prompt_tokens":0} , "x":1}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":"?"}}"#,
        r#"{"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":null,"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[],"usage":null}"#,
        r#"{"choices":[],"prompt_filter_results":[]}"#,
        "{}",
        r#"{"usage":1,"usage":{},"choices":[{}]}"#,
    ];
    assert_eq!(
        relayed(false, &chunks),
        [
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{}}] , "x":1}"#,
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            r#"{"usage":null,"choices":[{}]}"#,
        ]
    );
    assert_eq!(
        relayed(true, &chunks)[..10],
        [
            chunks[0],
            chunks[1],
            chunks[2],
            chunks[3],
            chunks[4],
            r#"{"usage":{"prompt_tokens":1},"id":"i","model":"m","choices":[]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
            "",
            "",
            "",
        ]
    );
}

/// The tool calls of one choice, as they come and as they leave.
#[track_caller]
fn numbered(calls: &[&str], expected: &[&str]) {
    let chunk = |calls: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{calls}]}}}}]}}"#);
    let chunks: Vec<String> = calls.iter().map(|calls| chunk(calls)).collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let expected: Vec<String> = expected.iter().map(|calls| chunk(calls)).collect();
    assert_eq!(relayed(false, &chunks), expected);
}

#[test]
fn calls_that_are_numbered_alike_are_numbered_anew() {
    numbered(
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"function":{"arguments":"{}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"id":null,"function":{"arguments":"{}"}}"#,
        ],
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"function":{"arguments":"{}"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"f","arguments":""}}"#,
            r#"{"index":1,"id":null,"function":{"arguments":"{}"}}"#,
        ],
    );
    let both = r#"{"index":0,"id":"a","function":{"name":"f"}},{"index":0,"id":"b","function":{"name":"g"}}"#;
    numbered(&[both], &[&both.replace(r#"0,"id":"b""#, r#"1,"id":"b""#)]);
    // Two calls without ids are told apart by their names.
    numbered(
        &[
            r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#,
            r#"{"index":0,"function":{"name":"g","arguments":"{}"}}"#,
        ],
        &[
            r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#,
            r#"{"index":1,"function":{"name":"g","arguments":"{}"}}"#,
        ],
    );
}

#[test]
fn calls_are_numbered_from_zero_and_each_has_a_number() {
    numbered(
        &[
            r#"{"index":1,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":1,"function":{"arguments":"{}"}}"#,
            r#"{ "index" : 2, "id":"b","function":{"name":"g","arguments":"{}"}}"#,
        ],
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"function":{"arguments":"{}"}}"#,
            r#"{ "index" : 1, "id":"b","function":{"name":"g","arguments":"{}"}}"#,
        ],
    );
    numbered(
        &[
            r#"{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","index":null,"function":{"name":"g"}}"#,
            r#"{"function":{"arguments":"{}"}},{}"#,
            r#"{"index":"1","function":{"arguments":" "}}"#,
        ],
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","index":1,"function":{"name":"g"}}"#,
            r#"{"index":1,"function":{"arguments":"{}"}},{"index":1}"#,
            r#"{"index":1,"function":{"arguments":" "}}"#,
        ],
    );
}

#[test]
fn ids_and_names_that_are_said_again_are_said_once() {
    numbered(
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#,
        ],
        &[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"id":null,"function":{"name":null,"arguments":"{}"}}"#,
        ],
    );
}

#[test]
fn choices_number_their_calls_apart() {
    let call = |choice: u32, index: u32, id: &str| {
        format!(r#"{{"choices":[{{"index":{choice},"delta":{{"tool_calls":[{{"index":{index},"id":"{id}"}}]}}}}]}}"#)
    };
    let chunks = [call(0, 0, "a"), call(1, 1, "b"), call(0, 0, "c"), call(1, 1, "d")];
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    assert_eq!(relayed(false, &chunks), [call(0, 0, "a"), call(1, 0, "b"), call(0, 1, "c"), call(1, 1, "d")]);
}

#[test]
fn what_is_kept_of_a_stream_is_bounded() {
    let call = |at: u32| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"id":"{at}"}}]}}}}]}}"#);
    let mut relay = Relay::new("i", "m", false);
    let full = (0..).find(|at| relay.frame(call(*at).as_bytes()) == Err(ChunkError::TooMuch));
    assert_eq!(full, Some(1_024));
    let long = "x".repeat(500_000);
    let call = |at: u32| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"id":"{at}{long}"}}]}}}}]}}"#);
    let mut relay = Relay::new("i", "m", false);
    let full = (0..).find(|at| relay.frame(call(*at).as_bytes()) == Err(ChunkError::TooMuch));
    assert!(full.is_some_and(|at| at < 70), "{full:?}");
}

#[test]
fn a_message_is_a_delta_in_a_stream() {
    assert_eq!(
        relayed(false, &[r#"{"choices":[{"message" : {"role":"assistant","content":"a"},"finish_reason":"stop"}]}"#]),
        [r#"{"choices":[{"delta" : {"role":"assistant","content":"a"},"finish_reason":"stop"}]}"#]
    );
}

#[test]
fn a_whole_answer_becomes_the_chunks_of_a_stream() {
    let body = r#"{"id":"x","object":"chat.completion","created":7,"model":"y","choices":[
        {"index":0,"message":{"role":"assistant","content":"ab","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},
         "finish_reason":"tool_calls"},
        {"index":1,"message":{"role":"assistant","content":"c"},"finish_reason":""},{"message":null,"index":2}],
        "usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let answer = r#"{"id":"i","object":"chat.completion.chunk","created":7,"model":"m","choices":[         {"index":0,"delta":{"role":"assistant","content":"ab","tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},          "finish_reason":"tool_calls"},         {"index":1,"delta":{"role":"assistant","content":"c"},"finish_reason":"stop"},{"delta":null,"index":2,"finish_reason":"stop"}]}"#;
    let usage = r#"{"id":"i","object":"chat.completion.chunk","created":7,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for (include_usage, expected) in [(false, vec![answer]), (true, vec![answer, usage])] {
        let mut relay = Relay::new("i", "m", include_usage);
        let chunks = relay.frame_whole(body.as_bytes()).unwrap();
        let frames: Vec<String> = chunks.iter().map(|chunk| data(&chunk.frame).replace('\n', " ")).collect();
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            frames.iter().map(|frame| squeezed(frame)).collect::<Vec<_>>(),
            expected.iter().map(|frame| squeezed(frame)).collect::<Vec<_>>()
        );
        let facts = &chunks[0].facts;
        assert_eq!((facts.ends, facts.text_bytes, facts.usage), (3, 2 + 3 + 1, Some(Usage::of(3, 2))));
        assert!(relay.is_finished());
    }
    let text =
        r#"{"object":"text_completion","choices":[{"text":"ab","index":0,"finish_reason":"length"}],"usage":null}"#;
    let chunks = Relay::new("i", "m", true).frame_whole(text.as_bytes()).unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!(
        data(&chunks[0].frame),
        r#"{"object":"text_completion","choices":[{"text":"ab","index":0,"finish_reason":"length"}]}"#
    );
    let failed = Relay::new("i", "m", true).frame_whole(br#"{"error":{"message":"boom"}}"#).unwrap();
    assert_eq!(failed[0].facts.error.as_ref().map(|error| error.message.as_str()), Some("boom"));
    for none in ["", "{}", "[]", "{\"choices\":[]}", "{\"a\":1}\n{\"b\":2}"] {
        assert_eq!(Relay::new("i", "m", true).frame_whole(none.as_bytes()), Err(ChunkError::NotAChunk), "{none}");
    }
}

/// Chunks that differ in their text alone are not read again, and no client and no bill can tell.
#[test]
fn chunks_that_are_alike_come_out_as_if_each_were_read() {
    let chat = |text: &str, rest: &str| {
        format!(
            r#"{{"id":"up","object":"x","model":"up","choices":[{{"index":0,"delta":{{"content":{text}}},"logprobs":null{rest}}}],"usage":null}}"#
        )
    };
    let bare = |text: &str, index: u32| {
        format!("{{\"usage\" : null,\n\"choices\":[{{\"text\":{text}, \"index\":{index}}}], \"created\":1}}")
    };
    let texts =
        [r#""""#, r#""a""#, r#""b""#, r#""é\n""#, r#""\\\"""#, r#""\u00e9\ud83d\ude00""#, r#"" c""#, "null", r#""d""#];
    let mut chunks: Vec<String> = texts.iter().map(|text| chat(text, "")).collect();
    chunks.extend(texts.iter().map(|text| bare(text, 1)));
    chunks.extend([bare("\"e\"", 2), bare("\"f\"", 1), chat("\"g\"", r#","finish_reason":"stop""#), chat("\"h\"", "")]);
    for include_usage in [false, true] {
        let relay = || Relay::new("i", "a \"name\"", include_usage);
        let (mut alike, mut each) = (relay(), relay());
        for (at, chunk) in chunks.iter().enumerate() {
            // What follows the chunk is not passed on, and makes it unlike the one before.
            let other = format!("{chunk}{}", " ".repeat(at));
            assert_eq!(alike.frame(chunk.as_bytes()), each.frame(other.as_bytes()), "{chunk}");
        }
        assert_eq!((alike.seen(), alike.has_ended(0)), (3, true));
    }
}

/// A choice of a chat's chunk, as it comes and as it leaves.
#[track_caller]
fn told(choice: &str, expected: &str) {
    let chunk = |choice: &str| format!(r#"{{"choices":[{{"index":0,{choice}}}]}}"#);
    assert_eq!(relayed(false, &[&chunk(choice)]), [chunk(expected)]);
}

#[test]
fn reasoning_leaves_under_both_of_its_names() {
    for (delta, expected) in [
        (r#"{"reasoning":"a"}"#, r#"{"reasoning":"a","reasoning_content":"a"}"#),
        (
            r#"{"role":"assistant","reasoning_content":"a"}"#,
            r#"{"role":"assistant","reasoning_content":"a","reasoning":"a"}"#,
        ),
        (r#"{"reasoning":null,"reasoning_content":"a"}"#, r#"{"reasoning":"a","reasoning_content":"a"}"#),
        (
            r#"{"content":null,"reasoning":"a","reasoning_content":"b"}"#,
            r#"{"content":null,"reasoning":"a","reasoning_content":"b"}"#,
        ),
        (r#"{"content":"a","reasoning_content":null}"#, r#"{"content":"a","reasoning_content":null}"#),
    ] {
        told(&format!("\"delta\":{delta}"), &format!("\"delta\":{expected}"));
    }
    let two = r#"{"choices":[{"index":0,"delta":{"reasoning":"a"}},{"index":1,"delta":{"reasoning":"b"}}]}"#;
    let expected = two.replace(r#""a""#, r#""a","reasoning_content":"a""#);
    let expected = expected.replace(r#""b""#, r#""b","reasoning_content":"b""#);
    assert_eq!(relayed(false, &[two]), [expected]);
    let whole = r#"{"choices":[{"message":{"reasoning":"a","content":"b"},"finish_reason":"stop"}]}"#;
    let chunks = Relay::new("i", "m", false).frame_whole(whole.as_bytes()).unwrap();
    let expected =
        r#"{"choices":[{"delta":{"reasoning":"a","reasoning_content":"a","content":"b"},"finish_reason":"stop"}]}"#;
    assert_eq!(data(&chunks[0].frame), expected);
}

#[test]
fn choices_end_by_openai_s_words() {
    for (reason, chat, completion) in [
        ("stop", "stop", "stop"),
        ("abort", "stop", "stop"),
        ("repetition", "length", "length"),
        ("content_filter", "content_filter", "content_filter"),
        ("tool_calls", "tool_calls", "stop"),
    ] {
        let choice = |said: &str, reason: &str| format!(r#"{said},"finish_reason":"{reason}""#);
        for (said, expected) in [(r#""delta":{"content":"a"}"#, chat), (r#""text":"a""#, completion)] {
            told(&choice(said, reason), &choice(said, expected));
        }
    }
    let failed = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"error"}]}"#;
    assert!(facts(failed).error.is_some_and(|error| error.message.contains("error")));
    let chunks = Relay::new("i", "m", true).frame_whole(failed.as_bytes()).unwrap();
    assert!(chunks[0].facts.error.is_some());
}

/// The second name costs no reading either: of such chunks only the first is read.
#[test]
fn reasoning_that_is_alike_comes_out_as_if_each_were_read() {
    let shapes: [fn(&str) -> String; 4] = [
        |text| {
            format!(
                r#"{{"id":"up","model":"up","choices":[{{"index":0,"delta":{{"reasoning":"{text}"}}}}],"usage":null}}"#
            )
        },
        |text| {
            format!(
                r#"{{"choices":[{{"delta":{{"content":null,"reasoning_content":"{text}","x":null}},"index":0}}],"model":"up"}}"#
            )
        },
        |text| {
            format!(
                r#"{{"id":"up","choices":[{{"index":1,"delta":{{"reasoning":null,"reasoning_content":"{text}"}}}}]}}"#
            )
        },
        |text| {
            format!(
                r#"{{"usage":null,"choices":[{{"index":1,"delta":{{"reasoning":"{text}","reasoning_content":""}}}}]}}"#
            )
        },
    ];
    for shape in shapes {
        let relay = || Relay::new("i", "a longer name", false);
        let (mut alike, mut each) = (relay(), relay());
        for (at, text) in ["a", "bc", "d", "e\\n", "é"].into_iter().enumerate() {
            let chunk = shape(text);
            let known = alike.alike.clone().text_of(chunk.as_bytes()).is_some();
            assert_eq!(known, at > 0, "{chunk}");
            let other = format!("{chunk}{}", " ".repeat(at));
            let framed = alike.frame(chunk.as_bytes()).unwrap();
            assert_eq!(Ok(framed.clone()), each.frame(other.as_bytes()), "{chunk}");
            let sent: serde_json::Value = serde_json::from_str(&data(&framed.frame)).unwrap();
            let delta = &sent["choices"][0]["delta"];
            assert!(delta["reasoning"].is_string() && delta["reasoning"] == delta["reasoning_content"], "{delta}");
        }
    }
}

#[test]
fn every_chunk_names_the_tier_that_it_is_served_in() {
    let chunk = |tier: &str, text: &str| {
        format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"usage":null{tier}}}"#)
    };
    for tier in ["", r#","service_tier":null"#, r#","service_tier":"priority""#] {
        let mut relay = Relay::new("i", "m", true).in_tier(Some(Tier::Flex));
        for text in ["a", "bc", "d"] {
            let frame = relay.frame(chunk(tier, text).as_bytes()).unwrap().frame;
            let told: serde_json::Value = serde_json::from_slice(frame.strip_prefix(b"data: ").unwrap()).unwrap();
            assert_eq!(
                (&told["service_tier"], &told["choices"][0]["delta"]["content"]),
                (&"flex".into(), &text.into())
            );
        }
        let frame = Relay::new("i", "m", true).frame(chunk(tier, "a").as_bytes()).unwrap().frame;
        assert_eq!(data(&frame), chunk(tier, "a"), "who did not ask is told what its server says");
    }
    let whole =
        r#"{"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let chunks = Relay::new("i", "m", true).in_tier(Some(Tier::Default)).frame_whole(whole.as_bytes()).unwrap();
    assert!(chunks.len() == 2 && chunks.iter().all(|chunk| data(&chunk.frame).contains(r#""service_tier":"default""#)));
}
