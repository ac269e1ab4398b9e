use serde_json::{Value, json};

use super::{End, NAMES, check_events, events, retelling};
use crate::{Code, Names, Tier};

const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}"#;

const TOLD_USAGE: &str = r#"usage {"input_tokens":5,"input_tokens_details":{"cache_write_tokens":0,"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8}"#;

fn ended(status: &str, items: usize) -> String {
    format!("{status}, {status}, {TOLD_USAGE}, {items} items")
}

#[test]
fn a_whole_response_has_every_member() {
    let told = retelling(&json!({
        "instructions": "be\nkind", "metadata": {"a": "b"}, "max_output_tokens": 9, "temperature": 0.5, "user": "u",
        "text": {"verbosity": "low"}, "reasoning": {"effort": "low"}, "service_tier": "flex", "tool_choice": "none",
        "tools": [{"type": "function", "name": "f", "parameters": {"a": 1}}],
    }));
    let chat = r#"{"choices":[{"index":1,"message":{"content":"no"}},{"index":0,"message":{"content":"hé"},"finish_reason":"stop"}]}"#;
    let names = Names { tier: Some(Tier::Flex), ..NAMES };
    let response: Value = serde_json::from_slice(&told.whole(chat.as_bytes(), names)).unwrap();
    let expected = json!({
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "completed", "error": null,
        "incomplete_details": null, "model": "org/model", "background": false, "previous_response_id": null, "store": false,
        "output": [{"id": "msg_1_0", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "hé", "annotations": [], "logprobs": []}]}],
        "instructions": "be\nkind", "metadata": {"a": "b"}, "max_output_tokens": 9, "max_tool_calls": null,
        "parallel_tool_calls": true, "temperature": 0.5, "top_p": null, "top_logprobs": 0, "truncation": "disabled",
        "tool_choice": "none", "tools": [{"type": "function", "name": "f", "parameters": {"a": 1}}], "user": "u",
        "safety_identifier": null, "prompt_cache_key": null, "service_tier": "flex",
        "reasoning": {"effort": "low", "summary": null}, "text": {"format": {"type": "text"}, "verbosity": "low"},
        "usage": null,
    });
    assert_eq!(response, expected);
}

#[test]
fn white_space_of_the_request_breaks_no_event() {
    let body = b"{\"input\":\"a\",\n\"metadata\": {\n \"a\" :\t\"b \\\" c\\\\\" }}";
    let told = super::super::ask_as_chat(body).unwrap().retelling;
    let [(_, created), ..] = &events(told.as_ref(), &["{}"], End::Done)[..] else { panic!("no event") };
    assert!(created.contains(r#""metadata":{"a":"b \" c\\"}"#), "{created}");
}

#[test]
fn a_text_is_told_as_it_comes() {
    check_events(
        &json!({}),
        &[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"He"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"y\n"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            USAGE,
        ],
        End::Done,
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
            r#"content_part.added "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#,
            r#"output_text.delta "item_id":"msg_1_0","output_index":0,"content_index":0,"delta":"He","logprobs":[]"#,
            r#"output_text.delta "item_id":"msg_1_0","output_index":0,"content_index":0,"delta":"y\n","logprobs":[]"#,
            r#"output_text.done "item_id":"msg_1_0","output_index":0,"content_index":0,"text":"Hey\n","logprobs":[]"#,
            r#"content_part.done "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"Hey\n","annotations":[],"logprobs":[]}"#,
            r#"output_item.done "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hey\n","annotations":[],"logprobs":[]}]}"#,
            &ended("completed", 1),
        ],
    );
}

#[test]
fn reasoning_closes_before_the_text_and_a_cut_text_is_incomplete() {
    check_events(
        &json!({}),
        &[
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}"#,
            USAGE,
        ],
        End::Done,
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"rs_1_0","type":"reasoning","status":"in_progress","summary":[],"content":[]}"#,
            r#"content_part.added "item_id":"rs_1_0","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":""}"#,
            r#"reasoning_text.delta "item_id":"rs_1_0","output_index":0,"content_index":0,"delta":"hm""#,
            r#"reasoning_text.done "item_id":"rs_1_0","output_index":0,"content_index":0,"text":"hm""#,
            r#"content_part.done "item_id":"rs_1_0","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":"hm"}"#,
            r#"output_item.done "output_index":0,"item":{"id":"rs_1_0","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}"#,
            r#"output_item.added "output_index":1,"item":{"id":"msg_1_1","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
            r#"content_part.added "item_id":"msg_1_1","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#,
            r#"output_text.delta "item_id":"msg_1_1","output_index":1,"content_index":0,"delta":"a","logprobs":[]"#,
            r#"output_text.done "item_id":"msg_1_1","output_index":1,"content_index":0,"text":"a","logprobs":[]"#,
            r#"content_part.done "item_id":"msg_1_1","output_index":1,"content_index":0,"part":{"type":"output_text","text":"a","annotations":[],"logprobs":[]}"#,
            r#"output_item.done "output_index":1,"item":{"id":"msg_1_1","type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}"#,
            &format!(
                r#"incomplete, incomplete, incomplete_details {{"reason":"max_output_tokens"}}, {TOLD_USAGE}, 2 items"#
            ),
        ],
    );
}

#[test]
fn a_refusal_is_a_part_of_its_own() {
    check_events(
        &json!({}),
        &[
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"refusal":"no"}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#,
        ],
        End::Done,
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
            r#"content_part.added "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#,
            r#"output_text.delta "item_id":"msg_1_0","output_index":0,"content_index":0,"delta":"a","logprobs":[]"#,
            r#"output_text.done "item_id":"msg_1_0","output_index":0,"content_index":0,"text":"a","logprobs":[]"#,
            r#"content_part.done "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"a","annotations":[],"logprobs":[]}"#,
            r#"content_part.added "item_id":"msg_1_0","output_index":0,"content_index":1,"part":{"type":"refusal","refusal":""}"#,
            r#"refusal.delta "item_id":"msg_1_0","output_index":0,"content_index":1,"delta":"no""#,
            r#"refusal.done "item_id":"msg_1_0","output_index":0,"content_index":1,"refusal":"no""#,
            r#"content_part.done "item_id":"msg_1_0","output_index":0,"content_index":1,"part":{"type":"refusal","refusal":"no"}"#,
            r#"output_item.done "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]},{"type":"refusal","refusal":"no"}]}"#,
            r#"incomplete, incomplete, incomplete_details {"reason":"content_filter"}, 1 items"#,
        ],
    );
}

#[test]
fn calls_may_come_in_turn() {
    check_events(
        &json!({}),
        &[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}},{"index":1,"function":{"name":"g"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"}"}}]},"finish_reason":"tool_calls"}]}"#,
            USAGE,
        ],
        End::Done,
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"fc_1_0","type":"function_call","status":"in_progress","call_id":"c1","name":"f","arguments":""}"#,
            r#"function_call_arguments.delta "item_id":"fc_1_0","output_index":0,"delta":"{\"a\":1}""#,
            r#"output_item.added "output_index":1,"item":{"id":"fc_1_1","type":"function_call","status":"in_progress","call_id":"call_1_1","name":"g","arguments":""}"#,
            r#"function_call_arguments.delta "item_id":"fc_1_1","output_index":1,"delta":"{""#,
            r#"function_call_arguments.delta "item_id":"fc_1_1","output_index":1,"delta":"}""#,
            r#"function_call_arguments.done "item_id":"fc_1_0","output_index":0,"name":"f","arguments":"{\"a\":1}""#,
            r#"output_item.done "output_index":0,"item":{"id":"fc_1_0","type":"function_call","status":"completed","call_id":"c1","name":"f","arguments":"{\"a\":1}"}"#,
            r#"function_call_arguments.done "item_id":"fc_1_1","output_index":1,"name":"g","arguments":"{}""#,
            r#"output_item.done "output_index":1,"item":{"id":"fc_1_1","type":"function_call","status":"completed","call_id":"call_1_1","name":"g","arguments":"{}"}"#,
            &ended("completed", 2),
        ],
    );
}

#[test]
fn custom_tools_and_namespaces_have_their_own_names() {
    let tools = json!({"tools": [
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "files", "description": "", "tools": [{"type": "function", "name": "read"}]},
    ]});
    check_events(
        &tools,
        &[
            r#"{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0,"id":"c1","function":{"name":"patch","arguments":"{\"inp"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"ut\": \"x\\n\"}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"c2","function":{"name":"files__read","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
        ],
        End::Done,
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
            r#"content_part.added "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#,
            r#"output_text.delta "item_id":"msg_1_0","output_index":0,"content_index":0,"delta":"a","logprobs":[]"#,
            r#"output_text.done "item_id":"msg_1_0","output_index":0,"content_index":0,"text":"a","logprobs":[]"#,
            r#"content_part.done "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"a","annotations":[],"logprobs":[]}"#,
            r#"output_item.done "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}"#,
            r#"output_item.added "output_index":1,"item":{"id":"ctc_1_1","type":"custom_tool_call","status":"in_progress","call_id":"c1","name":"patch","input":""}"#,
            r#"output_item.added "output_index":2,"item":{"id":"fc_1_2","type":"function_call","status":"in_progress","call_id":"c2","name":"read","namespace":"files","arguments":""}"#,
            r#"function_call_arguments.delta "item_id":"fc_1_2","output_index":2,"delta":"{}""#,
            r#"custom_tool_call_input.delta "item_id":"ctc_1_1","output_index":1,"delta":"x\n""#,
            r#"custom_tool_call_input.done "item_id":"ctc_1_1","output_index":1,"input":"x\n""#,
            r#"output_item.done "output_index":1,"item":{"id":"ctc_1_1","type":"custom_tool_call","status":"completed","call_id":"c1","name":"patch","input":"x\n"}"#,
            r#"function_call_arguments.done "item_id":"fc_1_2","output_index":2,"name":"read","arguments":"{}""#,
            r#"output_item.done "output_index":2,"item":{"id":"fc_1_2","type":"function_call","status":"completed","call_id":"c2","name":"read","namespace":"files","arguments":"{}"}"#,
            "completed, completed, 3 items",
        ],
    );
}

#[test]
fn an_input_is_told_however_the_model_gave_it() {
    let told = retelling(&json!({"tools": [{"type": "custom", "name": "t"}]}));
    for (arguments, input) in [
        (r#"{"input":"a\ud83d\ude00"}"#, "a\u{1f600}"),
        (r#"{"input":{"b": 1}}"#, r#"{"b": 1}"#),
        ("plain", "plain"),
        (r#"{"inp"#, r#"{"inp"#),
        (r#"{"other":1}"#, r#"{"other":1}"#),
        ("", ""),
    ] {
        let chat = json!({"choices": [{"message": {"tool_calls": [{"id": "c", "function": {"name": "t", "arguments": arguments}}]}}]});
        let response: Value = serde_json::from_slice(&told.whole(chat.to_string().as_bytes(), NAMES)).unwrap();
        assert_eq!(response["output"][0]["input"], input);
    }
    let chat = json!({"choices": [{"message": {"tool_calls": [{"custom": {"name": "u", "input": "{\"input\":1}"}}]}}]});
    let response: Value = serde_json::from_slice(&told.whole(chat.to_string().as_bytes(), NAMES)).unwrap();
    let call = &response["output"][0];
    assert_eq!(
        (&call["type"], &call["input"], &call["call_id"]),
        (&json!("custom_tool_call"), &json!("{\"input\":1}"), &json!("call_1_0"))
    );
}

#[test]
fn log_probabilities_are_told_where_they_are_asked_for() {
    let chunks = [
        r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-1.5,"bytes":[97],"top_logprobs":[]}]}}]}"#,
        r#"{"choices":[{"delta":{"content":""},"logprobs":{"content":[{"token":"b","logprob":-2,"bytes":null}]},"finish_reason":"stop"}]}"#,
    ];
    let first = json!({"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []});
    let second = json!({"token": "b", "logprob": -2, "bytes": [98], "top_logprobs": []});
    for (asked, deltas, all) in [
        (json!({"top_logprobs": 1}), [json!([first]), json!([second])], json!([first, second])),
        (json!({}), [json!([]), json!([])], json!([])),
    ] {
        let events = events(retelling(&asked).as_ref(), &chunks, End::Done);
        let data: Vec<Value> = events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
        let of = |kind: &str| {
            data.iter().filter(|data| data["type"] == kind).map(|data| data["logprobs"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("response.output_text.delta"), deltas);
        assert_eq!(of("response.output_text.done").first(), Some(&all));
        assert_eq!(data.last().unwrap()["response"]["output"][0]["content"][0]["logprobs"], all);
    }
}

#[test]
fn a_failure_says_what_came_before_it() {
    check_events(
        &json!({}),
        &[r#"{"choices":[{"delta":{"content":"a"}}]}"#],
        End::Failed(Code::UpstreamTimeout, "the model server took too long"),
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"output_item.added "output_index":0,"item":{"id":"msg_1_0","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
            r#"content_part.added "item_id":"msg_1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#,
            r#"output_text.delta "item_id":"msg_1_0","output_index":0,"content_index":0,"delta":"a","logprobs":[]"#,
            r#"failed, failed, error {"code":"server_error","message":"the model server took too long"}, 1 items"#,
        ],
    );
    check_events(
        &json!({}),
        &[],
        End::Failed(Code::RateLimitExceeded, "slow \"down\""),
        &[
            "created, in_progress, 0 items",
            "in_progress, in_progress, 0 items",
            r#"failed, failed, error {"code":"rate_limit_exceeded","message":"slow \"down\""}, 0 items"#,
        ],
    );
}

#[test]
fn an_answer_that_says_nothing_is_a_response() {
    for chunks in [&[][..], &["[]", "{", r#"{"choices":[{"delta":{"tool_calls":[{}]}}]}"#]] {
        let events = events(retelling(&json!({})).as_ref(), chunks, End::Done);
        let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["response.created", "response.in_progress", "response.completed"]);
    }
    let whole = retelling(&json!({})).whole(b"{", NAMES);
    assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap()["output"], json!([]));
}

#[test]
fn an_end_that_is_withheld_is_followed_by_a_failure() {
    let retelling = retelling(&json!({}));
    let mut telling = retelling.stream(NAMES);
    telling.chunk(br#"{"choices":[{"delta":{"content":"SECRET"},"finish_reason":"stop"}]}"#);
    assert!(!telling.done().is_empty());
    let failed = telling.failed(Code::ServiceUnavailable, "it could not be charged");
    let said = String::from_utf8_lossy(&failed);
    assert!(said.starts_with("event: response.failed\n") && !said.contains("SECRET"), "{said}");
    assert!(telling.failed(Code::ServiceUnavailable, "again").is_empty() && telling.done().is_empty());
}
