//! Holds: requests to the Messages API and the chats that they are asked as.

#![expect(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

use batchin_anthropic::ask_as_chat;
use serde_json::{Value, json};

/// The body with what every request has, and these members.
fn request(members: &Value) -> Value {
    let mut body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] });
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn asked(body: &Value) -> Value {
    let chat = ask_as_chat(body.to_string().as_bytes()).unwrap().body;
    serde_json::from_slice(&chat).unwrap()
}

/// Checks what the chat has beyond the model, the limit and the one message of [`request`].
#[track_caller]
fn check(members: &Value, beyond: &Value) {
    assert_eq!(asked(&request(members)), request(beyond), "{members}");
}

#[track_caller]
fn check_messages(messages: &Value, expected: &Value) {
    let chat = asked(&request(&json!({ "messages": messages })));
    assert_eq!(chat["messages"], *expected, "{messages}");
}

#[track_caller]
fn refused(body: &str) -> (String, String) {
    let fault = ask_as_chat(body.as_bytes()).unwrap_err();
    (fault.param.unwrap_or_default(), fault.message)
}

#[track_caller]
fn check_refused(members: &Value, param: &str) {
    let (found, message) = refused(&request(members).to_string());
    assert_eq!(found, param, "{members}: {message}");
    assert!(message.contains(&format!("`{param}`")), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn a_request_is_asked_as_it_came() {
    let body = r#"{"model":"m","max_tokens":9,"temperature":0.50,"top_p" : 1e0,"top_k":4,"messages":[{"role":"user","content":"h\u00e9 \"x\""}],"min_p":0.10,"é\n":[1, 2],"service_tier":"auto","stream":true,"metadata":null}"#;
    let chat = ask_as_chat(body.as_bytes()).unwrap().body;
    let expected = r#"{"max_tokens":9,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"h\u00e9 \"x\""}],"model":"m","temperature":0.50,"top_p":1e0,"top_k":4,"min_p":0.10,"é\n":[1, 2]}"#;
    assert_eq!(std::str::from_utf8(&chat).unwrap(), expected);
}

#[test]
fn members_have_their_names_in_chats() {
    check(&json!({}), &json!({}));
    check(&json!({ "stop_sequences": ["END", "é\n"] }), &json!({ "stop": ["END", "é\n"] }));
    check(&json!({ "stop_sequences": [] }), &json!({}));
    check(&json!({ "stream": false }), &json!({ "stream": false }));
    let streamed = json!({ "stream": true, "stream_options": { "include_usage": true } });
    check(&json!({ "stream": true }), &streamed);
    check(&json!({ "metadata": { "user_id": "u-1" } }), &json!({ "user": "u-1" }));
    check(&json!({ "metadata": { "user_id": "u".repeat(65) } }), &json!({}));
    check(&json!({ "metadata": { "user_id": null } }), &json!({}));
}

#[test]
fn what_only_anthropic_knows_is_left_out() {
    let members = json!({
        "anthropic_beta": ["x"], "anthropic_version": "x", "betas": ["x"], "cache_control": { "type": "ephemeral" },
        "compaction": {}, "container": null, "context_management": { "edits": [] }, "diagnostics": {}, "inference_geo": "global",
        "mcp_servers": [], "n": 1, "service_tier": "standard_only", "speed": "fast", "stop_sequences": null, "system": null,
        "thinking": null, "thread": null, "tool_choice": null, "tools": null, "user_profile_id": "u", "workspace_id": "w",
    });
    check(&members, &json!({}));
}

#[test]
fn thinking_is_the_servers_own_and_effort_goes_on() {
    for kind in ["enabled", "adaptive", "between_tools", "disabled"] {
        check(&json!({ "thinking": { "type": kind, "budget_tokens": 2048 } }), &json!({}));
    }
    for (effort, known) in [("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high"), ("max", "high")]
    {
        let config = json!({ "effort": effort });
        check(&json!({ "output_config": config }), &json!({ "reasoning_effort": known }));
        let enabled = json!({ "thinking": { "type": "adaptive" }, "output_config": config });
        check(&enabled, &json!({ "reasoning_effort": known }));
        check(&json!({ "thinking": { "type": "disabled" }, "output_config": config }), &json!({}));
    }
}

#[test]
fn a_schema_is_a_response_format() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let format = json!({ "type": "json_schema", "schema": schema });
    let expected = json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "output", "strict": true, "schema": schema } } });
    check(&json!({ "output_config": { "format": format } }), &expected);
    check(&json!({ "output_format": format }), &expected);
    check(&json!({ "output_format": null, "output_config": {} }), &json!({}));
}

#[test]
fn tools_are_functions() {
    let schema = json!({ "type": "object", "properties": {} });
    let function = |function: Value| json!({ "type": "function", "function": function });
    let tools = json!([
        { "name": "a", "description": "A", "input_schema": schema, "cache_control": { "type": "ephemeral" }, "strict": true,
          "eager_input_streaming": true, "defer_loading": false, "input_examples": [{}] },
        { "type": "custom", "name": "b", "input_schema": schema },
        { "type": "bash_20250124", "name": "bash", "input_schema": schema },
    ]);
    let functions = json!([
        function(json!({ "name": "a", "description": "A", "parameters": schema, "strict": true })),
        function(json!({ "name": "b", "parameters": schema })),
        function(json!({ "name": "bash", "parameters": schema })),
    ]);
    check(&json!({ "tools": tools }), &json!({ "tools": functions }));
    check(&json!({ "tools": [] }), &json!({}));
    for (choice, chosen) in [
        (json!({ "type": "auto" }), json!({ "tool_choice": "auto" })),
        (json!({ "type": "any" }), json!({ "tool_choice": "required" })),
        (json!({ "type": "none" }), json!({ "tool_choice": "none" })),
        (json!({ "type": "tool", "name": "a" }), json!({ "tool_choice": function(json!({ "name": "a" })) })),
        (
            json!({ "type": "auto", "disable_parallel_tool_use": true }),
            json!({ "tool_choice": "auto", "parallel_tool_calls": false }),
        ),
    ] {
        let mut expected = chosen;
        expected["tools"] = functions.clone();
        check(&json!({ "tools": tools, "tool_choice": choice }), &expected);
    }
    check(&json!({ "tool_choice": { "type": "auto", "disable_parallel_tool_use": true } }), &json!({}));
}

#[test]
fn the_system_prompt_is_the_first_message() {
    let asked = |system: Value| asked(&request(&json!({ "system": system })))["messages"].clone();
    let user = json!({ "role": "user", "content": "hi" });
    let with = |text: &str| json!([{ "role": "system", "content": text }, user]);
    assert_eq!(asked(json!("be brief")), with("be brief"));
    let blocks = json!([
        { "type": "text", "text": "x-anthropic-billing-header: cch=1;" },
        { "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } },
        { "type": "text", "text": "b\n" },
    ]);
    assert_eq!(asked(blocks), with("a\n\nb\n"));
    assert_eq!(asked(json!("x-anthropic-billing-header: cch=1;\nbe brief")), with("be brief"));
    assert_eq!(asked(json!("")), json!([user]));
    assert_eq!(asked(json!([])), json!([user]));
    check_messages(
        &json!([user, { "role": "system", "content": [{ "type": "text", "text": "now" }] }]),
        &json!([{ "role": "user", "content": "hi\n\nnow" }]),
    );
}

#[test]
fn what_one_role_says_in_a_row_is_one_turn() {
    let said = |role: &str, content: Value| json!({ "role": role, "content": content });
    let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "f", "input": {} });
    let result = |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": "r" });
    let called = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": "{}" } });
    check_messages(
        &json!([
            said("user", json!("a")),
            said("user", json!("b")),
            said("assistant", json!([{ "type": "text", "text": "c" }, call("1")])),
            said("assistant", json!([call("2")])),
            said("user", json!([result("1")])),
            said("user", json!([result("2"), { "type": "text", "text": "d" }])),
            said("system", json!("e")),
        ]),
        &json!([
            said("user", json!("a\n\nb")),
            { "role": "assistant", "content": "c", "tool_calls": [called("1"), called("2")] },
            { "role": "tool", "tool_call_id": "1", "content": "r" },
            { "role": "tool", "tool_call_id": "2", "content": "r" },
            said("user", json!("d\n\ne")),
        ]),
    );
}

#[test]
fn turns_with_tools_and_images_are_a_chat() {
    let image = |data: &str| json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": data } });
    let shown = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let turns = json!([
        { "role": "user", "content": [
            { "type": "text", "text": "what is this?" },
            image("QQ=="),
            { "type": "image", "source": { "type": "url", "url": "https://a.example/b.png" } },
        ] },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "hm", "signature": "" },
            { "type": "redacted_thinking", "data": "xx" },
            { "type": "thinking", "thinking": "oh", "signature": "" },
            { "type": "text", "text": "looking" },
            { "type": "tool_use", "id": "t1", "name": "look", "input": { "at": [1, "a b"], "Q": null } },
            { "type": "tool_use", "id": "t2", "name": "show", "input": {} },
        ] },
        { "role": "user", "content": [
            { "type": "text", "text": "go on" },
            { "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "type": "tool_result", "tool_use_id": "t2", "content": [image("Qg==")] },
            { "type": "tool_result", "tool_use_id": "t3", "is_error": true, "content": "no such file" },
            { "type": "tool_result", "tool_use_id": "t4" },
        ] },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t5", "name": "look" }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t5", "is_error": false, "content": "done" }] },
        { "role": "assistant", "content": "It is" },
    ]);
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let tool = |id: &str, content: &str| json!({ "role": "tool", "tool_call_id": id, "content": content });
    let chat = json!([
        { "role": "user", "content": [
            { "type": "text", "text": "what is this?" }, shown("data:image/png;base64,QQ=="), shown("https://a.example/b.png"),
        ] },
        { "role": "assistant", "content": "looking", "reasoning_content": "hm\n\noh",
          "tool_calls": [call("t1", "look", r#"{"Q":null,"at":[1,"a b"]}"#), call("t2", "show", "{}")] },
        tool("t1", "a\n\nb"),
        tool("t2", "(shown in the next message)"),
        tool("t3", "Error: no such file"),
        tool("t4", ""),
        { "role": "user", "content": [
            { "type": "text", "text": "From the result of tool call t2:" }, shown("data:image/png;base64,Qg=="),
            { "type": "text", "text": "go on" },
        ] },
        { "role": "assistant", "content": null, "tool_calls": [call("t5", "look", "{}")] },
        tool("t5", "done"),
        { "role": "assistant", "content": "It is" },
    ]);
    check_messages(&turns, &chat);
}

#[test]
fn documents_are_files_or_texts() {
    let document = |source: Value, title: Value, context: Value| json!([{ "role": "user", "content": [{ "type": "document", "source": source, "title": title, "context": context }] }]);
    let pdf = json!({ "type": "base64", "media_type": "application/pdf", "data": "QQ==" });
    let file = |name: &str| json!({ "type": "file", "file": { "filename": name, "file_data": "data:application/pdf;base64,QQ==" } });
    check_messages(
        &document(pdf.clone(), Value::Null, Value::Null),
        &json!([{ "role": "user", "content": [file("document.pdf")] }]),
    );
    check_messages(
        &document(pdf, json!("a.pdf"), json!("mine")),
        &json!([{ "role": "user", "content": [{ "type": "text", "text": "mine" }, file("a.pdf")] }]),
    );
    let text = json!({ "type": "text", "media_type": "text/plain", "data": "long" });
    check_messages(&document(text, json!("T"), Value::Null), &json!([{ "role": "user", "content": "T\n\nlong" }]));
    let content = json!({ "type": "content", "content": [{ "type": "text", "text": "long" }] });
    check_messages(&document(content, Value::Null, json!("c")), &json!([{ "role": "user", "content": "c\n\nlong" }]));
    let found = json!({ "type": "search_result", "title": "T", "source": "https://a.example", "content": [{ "type": "text", "text": "x" }, { "type": "text", "text": "y" }] });
    check_messages(
        &json!([{ "role": "user", "content": [found] }]),
        &json!([{ "role": "user", "content": "T\nhttps://a.example\n\nx\n\ny" }]),
    );
}

#[test]
fn what_cannot_be_asked_is_refused_where_it_stands() {
    for (members, param) in [
        (json!({ "max_tokens": null }), "max_tokens"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": "9" }), "max_tokens"),
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": "secret" }), "messages"),
        (json!({ "system": 7 }), "system"),
        (json!({ "system": [{ "type": "image" }] }), "system[0].type"),
        (json!({ "container": "secret" }), "container"),
        (json!({ "mcp_servers": [{}] }), "mcp_servers"),
        (json!({ "thread": {} }), "thread"),
        (json!({ "inference_geo": "us" }), "inference_geo"),
        (json!({ "n": 2 }), "n"),
        (json!({ "stop_sequences": "secret" }), "stop_sequences"),
        (json!({ "stop_sequences": ["a", 1] }), "stop_sequences[1]"),
        (json!({ "metadata": "secret" }), "metadata"),
        (json!({ "metadata": { "user_id": 7 } }), "metadata.user_id"),
        (json!({ "thinking": true }), "thinking"),
        (json!({ "thinking": { "type": "secret" } }), "thinking.type"),
        (json!({ "output_config": [] }), "output_config"),
        (json!({ "output_config": { "effort": "secret" } }), "output_config.effort"),
        (json!({ "output_config": { "format": { "type": "secret" } } }), "output_config.format.type"),
        (json!({ "output_config": { "format": { "type": "json_schema" } } }), "output_config.format.schema"),
        (json!({ "output_format": { "type": "text" } }), "output_format.type"),
        (json!({ "tools": {} }), "tools"),
        (json!({ "tools": ["secret"] }), "tools[0]"),
        (json!({ "tools": [{ "name": "secret" }] }), "tools[0].input_schema"),
        (json!({ "tools": [{ "input_schema": {} }] }), "tools[0].name"),
        (json!({ "tools": [{ "name": "a", "input_schema": {}, "description": 1 }] }), "tools[0].description"),
        (json!({ "tools": [{ "name": "a", "input_schema": {}, "strict": "secret" }] }), "tools[0].strict"),
        (json!({ "tools": [{ "name": "a", "input_schema": {}, "defer_loading": true }] }), "tools[0].defer_loading"),
        (json!({ "tool_choice": { "type": "secret" } }), "tool_choice.type"),
        (json!({ "tool_choice": { "type": "tool" } }), "tool_choice.name"),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice"),
        (json!({ "tool_choice": "auto" }), "tool_choice"),
    ] {
        check_refused(&members, param);
    }
    for kind in [
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "tool_search_tool_bm25_20251119",
        "mcp_toolset",
    ] {
        check_refused(&json!({ "tools": [{ "type": kind, "name": "x", "input_schema": {} }] }), "tools[0].type");
    }
    for kind in ["bash_20250124", "text_editor_20250728", "memory_20250818", "computer_20250124", "other"] {
        check_refused(&json!({ "tools": [{ "type": kind, "name": "x" }] }), "tools[0].type");
    }
}

#[test]
fn messages_and_blocks_are_refused_where_they_stand() {
    let user = |block: Value| json!([{ "role": "user", "content": [{ "type": "text", "text": "a" }, block] }]);
    let assistant = |block: Value| json!([{ "role": "assistant", "content": [block] }]);
    let source = |kind: &str, source: Value| user(json!({ "type": kind, "source": source }));
    let within = |block: Value| user(json!({ "type": "tool_result", "tool_use_id": "t", "content": [block] }));
    for (messages, param) in [
        (json!(["secret"]), ""),
        (json!([{ "content": "secret" }]), ".role"),
        (json!([{ "role": "secret", "content": "x" }]), ".role"),
        (json!([{ "role": "user" }]), ".content"),
        (json!([{ "role": "user", "content": 7 }]), ".content"),
        (user(json!("secret")), ".content[1]"),
        (user(json!({})), ".content[1].type"),
        (user(json!({ "type": "server_tool_use" })), ".content[1].type"),
        (user(json!({ "type": "tool_use" })), ".content[1].type"),
        (user(json!({ "type": "text", "text": 7 })), ".content[1].text"),
        (assistant(json!({ "type": "image" })), ".content[0].type"),
        (assistant(json!({ "type": "thinking" })), ".content[0].thinking"),
        (assistant(json!({ "type": "tool_use", "name": "f" })), ".content[0].id"),
        (assistant(json!({ "type": "tool_use", "id": "t" })), ".content[0].name"),
        (assistant(json!({ "type": "tool_use", "id": "t", "name": "f", "input": "secret" })), ".content[0].input"),
        (user(json!({ "type": "image" })), ".content[1].source"),
        (source("image", json!("secret")), ".content[1].source"),
        (source("image", json!({ "type": "file", "file_id": "secret" })), ".content[1].source.type"),
        (source("image", json!({ "type": "url" })), ".content[1].source.url"),
        (source("image", json!({ "type": "base64", "media_type": "image/a,secret" })), ".content[1].source.media_type"),
        (source("image", json!({ "type": "base64", "media_type": "image/png" })), ".content[1].source.data"),
        (source("document", json!({ "type": "url", "url": "secret" })), ".content[1].source.type"),
        (source("document", json!({ "type": "file", "file_id": "secret" })), ".content[1].source.type"),
        (source("document", json!({ "type": "base64", "media_type": "text/csv" })), ".content[1].source.media_type"),
        (source("document", json!({ "type": "text" })), ".content[1].source.data"),
        (source("document", json!({ "type": "content" })), ".content[1].source.content"),
        (
            source("document", json!({ "type": "content", "content": [{ "type": "document" }] })),
            ".content[1].source.content[0].type",
        ),
        (user(json!({ "type": "search_result", "title": "a" })), ".content[1].source"),
        (user(json!({ "type": "search_result", "title": "a", "source": "b" })), ".content[1].content"),
        (user(json!({ "type": "tool_result" })), ".content[1].tool_use_id"),
        (user(json!({ "type": "tool_result", "tool_use_id": "t", "is_error": "secret" })), ".content[1].is_error"),
        (within(json!({ "type": "tool_reference" })), ".content[1].content[0].type"),
        (within(json!({ "type": "tool_result", "tool_use_id": "u" })), ".content[1].content[0].type"),
    ] {
        check_refused(&json!({ "messages": messages }), &format!("messages[0]{param}"));
    }
    let (_, message) = refused(&request(&json!({ "messages": assistant(json!({ "type": "image" })) })).to_string());
    let listed = r#"must be "text", "thinking", "redacted_thinking" or "tool_use""#;
    assert_eq!(message, format!("`messages[0].content[0].type` {listed}"));
}

#[test]
fn members_stand_once_in_small_letters() {
    let with = |member: &str| {
        format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}],{member}}}"#)
    };
    for (member, param) in [
        (r#""max_tokens":9"#, "max_tokens"),
        (r#""messages":[]"#, "messages"),
        (r#""m\u0061x_tokens":9"#, "max_tokens"),
        (r#""Max_Tokens":9"#, "max_tokens"),
        ("\"max_to\u{212a}ens\":9", "max_tokens"),
        ("\"\u{17f}ystem\":9", "system"),
        (
            r#""output_format":{"type":"json_schema","schema":{}},"output_config":{"format":{"type":"json_schema","schema":{}}}"#,
            "output_format",
        ),
        (r#""stop_sequences":["a"],"stop":["b"]"#, "stop"),
        (r#""stream":true,"stream_options":{}"#, "stream_options"),
        (r#""metadata":{"user_id":"a"},"user":"b""#, "user"),
        (r#""output_config":{"effort":"low"},"reasoning_effort":"high""#, "reasoning_effort"),
    ] {
        assert_eq!(refused(&with(member)).0, param, "{member}");
    }
    let alone = with(r#""reasoning_effort":"high","stop":["a"],"é":1"#);
    let chat: Value = serde_json::from_slice(&ask_as_chat(alone.as_bytes()).unwrap().body).unwrap();
    assert_eq!((&chat["reasoning_effort"], &chat["stop"], &chat["é"]), (&json!("high"), &json!(["a"]), &json!(1)));
}

#[test]
fn what_is_no_object_has_a_place() {
    let fault = ask_as_chat(b"{\"model\":\n}").unwrap_err();
    assert_eq!(fault.position.map(|place| (place.line, place.column)), Some((2, 1)));
    assert!(ask_as_chat(b"[]").unwrap_err().message.contains("JSON object"));
    assert!(ask_as_chat(b"\xff").unwrap_err().message.contains("UTF-8"));
}
