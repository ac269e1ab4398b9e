use serde_json::{Value, json};

use super::{super::ask_as_chat, chat};

#[track_caller]
fn check_messages(input: Value, expected: Value) {
    let asked = chat(&json!({"model": "m", "input": input}));
    assert_eq!(asked, json!({"model": "m", "messages": expected}));
}

#[test]
fn what_is_not_read_goes_on_byte_for_byte() {
    let body = br#"{ "model":"m\u0031", "input" : "h\u00e9\ud83d", "seed": 1.0e0, "x y":{ "a":[1 ,2]}, "temperature": 0.50,
        "stop":null, "instructions": null, "store":false, "metadata":{"a":"b"}, "include":["reasoning.encrypted_content"],
        "truncation":"auto", "stream_options":{"include_obfuscation":false}, "prompt_cache_retention":"24h", "max_tool_calls":3,
        "client_metadata":{"a":1}, "background":false, "previous_response_id":null, "n":1 }"#;
    let asked = ask_as_chat(body).unwrap();
    let expected = r#"{"model":"m\u0031","messages":[{"role":"user","content":"h\u00e9\ud83d"}],"temperature":0.50,"seed":1.0e0,"x y":{ "a":[1 ,2]},"stop":null}"#;
    assert_eq!(asked.body, expected);
}

#[test]
fn settings_have_a_chat_s_names() {
    let schema = json!({"type": "object", "properties": {}});
    let asked = chat(&json!({
        "model": "m", "input": "hi", "instructions": "be kind", "stream": true, "max_output_tokens": 9, "top_p": 0.5,
        "reasoning": {"effort": "low", "summary": "auto"}, "parallel_tool_calls": false, "user": "u",
        "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex", "top_logprobs": 2,
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}},
    }));
    let expected = json!({
        "model": "m", "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 9, "top_p": 0.5,
        "reasoning_effort": "low", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex",
        "logprobs": true, "top_logprobs": 2, "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}},
    });
    assert_eq!(asked, expected);
    let with = |members: Value| {
        let mut request = json!({"input": "hi"});
        request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        chat(&request)
    };
    assert_eq!(
        with(json!({"text": {"format": {"type": "json_object"}}}))["response_format"],
        json!({"type": "json_object"})
    );
    assert_eq!(with(json!({"text": {"format": {"type": "text"}}})).get("response_format"), None);
    assert_eq!(with(json!({"include": ["message.output_text.logprobs"]}))["logprobs"], true);
    assert_eq!(
        with(json!({"top_logprobs": 0, "stream": false})),
        json!({"messages": [{"role": "user", "content": "hi"}]})
    );
}

#[test]
fn members_are_named_as_the_request_has_them() {
    let told = super::retelling(&json!({}));
    for (chat, here) in [
        ("max_completion_tokens", "max_output_tokens"),
        ("messages", "input"),
        ("messages[0].content", "input"),
        ("response_format", "text.format"),
        ("temperature", "temperature"),
        ("seed", "seed"),
    ] {
        assert_eq!(told.member(chat), here);
    }
}

#[test]
fn messages_take_every_form() {
    check_messages(
        json!([
            {"role": "developer", "content": "a"},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "b"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "c"}, {"type": "text", "text": "d"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "e\n", "annotations": []}, {"type": "refusal", "refusal": "f"}]},
            {"role": "assistant", "content": "g"},
            {"role": "user", "content": []},
            {"role": "developer", "content": "h"},
        ]),
        json!([
            {"role": "system", "content": "a\n\nb"},
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
            {"role": "assistant", "content": "e\nf"},
            {"role": "assistant", "content": "g"},
            {"role": "user", "content": ""},
            {"role": "user", "content": "h"},
        ]),
    );
    let empty = chat(&json!({"input": [{"role": "developer", "content": ""}]}));
    assert_eq!(empty["messages"], json!([{"role": "system", "content": ""}]));
    let asked = chat(&json!({"instructions": "first", "input": [{"role": "developer", "content": "then"}]}));
    assert_eq!(asked["messages"], json!([{"role": "system", "content": "first\n\nthen"}]));
}

#[test]
fn images_files_and_sounds_are_parts() {
    check_messages(
        json!([{"role": "user", "content": [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            {"type": "input_image", "image_url": "https://example.com/a.png", "file_id": null},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ]}]),
        json!([{"role": "user", "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ]}]),
    );
}

fn called(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[test]
fn what_was_one_answer_is_one_message_again() {
    check_messages(
        json!([
            {"role": "user", "content": "a"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "no"}],
             "content": [{"type": "reasoning_text", "text": "th\n"}, {"type": "reasoning_text", "text": "ink"}]},
            {"role": "assistant", "content": "b"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "!"}, {"type": "summary_text", "text": "?"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}", "status": "completed"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "a \"b\"\n"},
            {"type": "function_call", "call_id": "c3", "namespace": "files", "name": "read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "custom_tool_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "two"}, {"type": "output_text", "text": "three"}]},
            {"type": "function_call_output", "call_id": "c3",
             "output": [{"type": "input_text", "text": "four"}, {"type": "input_image", "image_url": "data:,"}]},
            {"type": "reasoning", "encrypted_content": "AAAA", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "said nothing"}]},
            {"role": "user", "content": "d"},
        ]),
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": "th\nink!\n\n?", "tool_calls": [
                called("c1", "f", "{\"x\":1}"), called("c2", "g", "{\"input\":\"a \\\"b\\\"\\n\"}"),
                called("c3", "files__read", "{}"),
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": "two\nthree"},
            {"role": "tool", "tool_call_id": "c3", "content": [
                {"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "data:,"}},
            ]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ]),
    );
}

#[test]
fn a_call_may_stand_alone_and_a_thought_belongs_to_what_follows() {
    check_messages(
        json!([
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""},
            {"role": "assistant", "content": "after"},
            {"type": "function_call_output", "call_id": "c1", "output": ""},
            {"role": "assistant", "content": "b"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "of c"}]},
            {"role": "assistant", "content": "c"},
        ]),
        json!([
            {"role": "assistant", "content": "after", "tool_calls": [called("c1", "f", "")]},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
            {"role": "assistant", "content": "b"},
            {"role": "assistant", "content": "c", "reasoning_content": "of c"},
        ]),
    );
    check_messages(
        json!([{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}]),
        json!([{"role": "assistant", "content": null, "tool_calls": [called("c1", "f", "{}")]}]),
    );
}

fn tools() -> Value {
    json!([
        {"type": "function", "name": "f", "description": "do", "parameters": {"type": "object"}, "strict": true, "defer_loading": true},
        {"type": "function", "name": "bare", "description": null, "parameters": null, "strict": null},
        {"type": "custom", "name": "patch", "description": "Patch.",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"x\"\n"}},
        {"type": "namespace", "name": "files", "description": "About files.", "tools": [
            {"type": "function", "name": "read", "description": "Read.", "parameters": {}},
            {"type": "custom", "name": "run", "format": {"type": "text"}},
        ]},
        {"type": "namespace", "name": "mcp__a__", "description": "", "tools": [{"type": "function", "name": "b"}]},
    ])
}

fn offered(choice: Value) -> (Value, Value) {
    let mut asked = chat(&json!({"input": "a", "tools": tools(), "tool_choice": choice, "parallel_tool_calls": true}));
    assert_eq!(asked["parallel_tool_calls"], true);
    (asked["tools"].take(), asked["tool_choice"].take())
}

#[test]
fn tools_become_functions() {
    let input = json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"], "additionalProperties": false});
    let how = "Give the whole input of this tool as the string `input`, as plain text.";
    let patch = format!("Patch.\n\n{how}\n\nThe input must match this lark grammar:\nstart: \"x\"\n");
    let (told, choice) = offered(Value::Null);
    let functions: Vec<Value> = told.as_array().unwrap().iter().map(|tool| tool["function"].clone()).collect();
    assert!(told.as_array().unwrap().iter().all(|tool| tool["type"] == "function"));
    let expected = json!([
        {"name": "f", "description": "do", "parameters": {"type": "object"}, "strict": true},
        {"name": "bare"},
        {"name": "patch", "description": patch, "parameters": input},
        {"name": "files__read", "description": "About files.\n\nRead.", "parameters": {}},
        {"name": "files__run", "description": how, "parameters": input},
        {"name": "mcp__a__b"},
    ]);
    assert_eq!((Value::from(functions), choice), (expected, Value::Null));
}

#[test]
fn a_choice_among_tools_is_told_by_the_chat_s_names() {
    for word in ["auto", "none", "required"] {
        assert_eq!(offered(json!(word)).1, word);
    }
    let choice = |kind: &str, name: &str| offered(json!({"type": kind, "name": name})).1["function"]["name"].clone();
    assert_eq!(choice("function", "f"), "f");
    assert_eq!(choice("custom", "patch"), "patch");
    assert_eq!(choice("function", "read"), "files__read");
    let (told, mode) = offered(json!({"type": "allowed_tools", "mode": "required", "tools": [
        {"type": "namespace", "name": "files"}, {"type": "function", "name": "bare"}, {"type": "custom", "name": "patch"},
    ]}));
    let names: Vec<_> = told.as_array().unwrap().iter().map(|tool| tool["function"]["name"].clone()).collect();
    assert_eq!(
        (names, mode),
        (vec![json!("bare"), json!("patch"), json!("files__read"), json!("files__run")], json!("required"))
    );
}

#[test]
fn without_tools_nothing_is_said_of_them() {
    let expected = json!({"messages": [{"role": "user", "content": "a"}]});
    for choice in ["auto", "none"] {
        let request = json!({"input": "a", "tools": [], "tool_choice": choice, "parallel_tool_calls": true});
        assert_eq!(chat(&request), expected);
    }
}

#[test]
fn a_reference_to_thoughts_is_passed_over() {
    let thought = json!({"type": "item_reference", "id": "rs_1_0"});
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "r"});
    let said = json!({"role": "user", "content": "x"});
    assert_eq!(chat(&json!({"input": [said, thought, call, output]})), chat(&json!({"input": [said, call, output]})));
}
