use serde_json::{Value, json};

use super::super::ask_as_chat;

#[track_caller]
fn refused(body: &str) -> (String, String) {
    let fault = ask_as_chat(body.as_bytes()).expect_err(body);
    (fault.param.clone().unwrap_or_default(), fault.message)
}

/// The request with this member.
#[track_caller]
fn check(member: &str, value: Value, param: &str) {
    let mut request = json!({"model": "m", "input": "hi"});
    request[member] = value;
    let (found, message) = refused(&request.to_string());
    assert_eq!(found, param, "{message}");
    assert!(message.starts_with(&format!("`{param}` ")) && !message.contains("SECRET"), "{message}");
}

#[test]
fn what_needs_a_store_or_another_server_is_refused() {
    for name in ["previous_response_id", "conversation", "prompt", "moderation", "context_management"] {
        check(name, json!("SECRET"), name);
    }
    for name in ["store", "background"] {
        check(name, json!(true), name);
        check(name, json!("SECRET"), name);
    }
    for name in [
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "logprobs",
        "functions",
        "function_call",
        "n",
    ] {
        check(name, json!(2), name);
    }
}

#[test]
fn a_read_member_stands_once_and_in_small_letters() {
    assert_eq!(refused(r#"{"input":"a","input":null}"#).0, "input");
    assert_eq!(refused(r#"{"input":"a","Previous_Response_Id":"b"}"#).0, "Previous_Response_Id");
    assert_eq!(refused(r#"{"input":"a","\u017ftore":true}"#).0, "\u{17f}tore");
}

#[test]
fn what_is_no_json_object_is_refused_as_everywhere() {
    for body in ["", "[]", "{\"input\":", "{} {}"] {
        assert_eq!(refused(body).0, "", "{body}");
    }
    assert!(ask_as_chat(b"{\"input\":\"\xff\"}").unwrap_err().message.contains("UTF-8"));
    let deep = format!("{{\"input\":\"a\",\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert!(refused(&deep).1.contains("nested too deeply"));
}

#[test]
fn settings_are_checked() {
    for (name, value, param) in [
        ("stream", json!("SECRET"), "stream"),
        ("instructions", json!(["SECRET"]), "instructions"),
        ("text", json!(1), "text"),
        ("text", json!({"verbosity": 1}), "text.verbosity"),
        ("text", json!({"format": "SECRET"}), "text.format"),
        ("text", json!({"format": {"type": "SECRET"}}), "text.format.type"),
        ("text", json!({"format": {"type": "json_schema", "name": "n"}}), "text.format.schema"),
        ("text", json!({"format": {"type": "json_schema", "schema": {}}}), "text.format.name"),
        (
            "text",
            json!({"format": {"type": "json_schema", "schema": {}, "name": "n", "strict": 1}}),
            "text.format.strict",
        ),
        ("reasoning", json!("SECRET"), "reasoning"),
        ("reasoning", json!({"effort": 1}), "reasoning.effort"),
        ("parallel_tool_calls", json!(1), "parallel_tool_calls"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("top_p", json!("SECRET"), "top_p"),
        ("include", json!("SECRET"), "include"),
        ("include", json!([1]), "include[0]"),
        ("truncation", json!("SECRET"), "truncation"),
        ("max_tool_calls", json!(-1), "max_tool_calls"),
        ("metadata", json!({"SECRET": 1}), "metadata"),
        ("metadata", json!("SECRET"), "metadata"),
        ("user", json!(1), "user"),
        ("service_tier", json!(1), "service_tier"),
    ] {
        check(name, value, param);
    }
}

#[test]
fn names_and_numbers_of_tools_are_bounded() {
    let tool = |name: &str| json!({"type": "function", "name": name});
    let long = "n".repeat(257);
    let many = |count: usize| (0..count).map(|at| tool(&format!("f{at}"))).collect::<Vec<_>>();
    let namespace = |name: &str, tools: Vec<Value>| json!({"type": "namespace", "name": name, "tools": tools});
    let of = |members: Value| {
        let mut request = json!({"input": "a"});
        request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        refused(&request.to_string()).0
    };
    assert_eq!(of(json!({"tools": [tool(&long)]})), "tools[0].name");
    assert_eq!(of(json!({"tools": [namespace(&long, many(1))]})), "tools[0].name");
    assert_eq!(of(json!({"tools": many(1_025)})), "tools[1024]");
    assert_eq!(of(json!({"tools": [namespace("n", many(1_025))]})), "tools[0].tools[1024]");
    let allowed = json!({"type": "allowed_tools", "mode": "auto", "tools": vec![tool("f0"); 1_025]});
    assert_eq!(of(json!({"tools": many(1), "tool_choice": allowed})), "tool_choice.tools[1024]");
    let call = json!([{"type": "function_call", "call_id": "c", "name": "f", "namespace": long, "arguments": "{}"}]);
    assert_eq!(of(json!({"input": call})), "input[0].namespace");
}

#[test]
fn the_input_s_faults_have_a_place() {
    for (input, param) in [
        (Value::Null, "input"),
        (json!(""), "input"),
        (json!([]), "input"),
        (json!({}), "input"),
        (json!([{"type": "reasoning", "summary": [], "encrypted_content": "SECRET"}]), "input"),
        (json!(["SECRET"]), "input[0]"),
        (json!([{}]), "input[0].type"),
        (json!([{"type": "item_reference", "id": "SECRET"}]), "input[0].type"),
        (json!([{"role": "user", "content": "a"}, {"type": "web_search_call"}]), "input[1].type"),
        (json!([{"role": "tool", "content": "a"}]), "input[0].role"),
        (json!([{"type": "message"}]), "input[0].role"),
        (json!([{"role": "user"}]), "input[0].content"),
        (json!([{"role": "user", "content": 1}]), "input[0].content"),
        (json!([{"role": "user", "content": [1]}]), "input[0].content[0]"),
        (json!([{"role": "user", "content": [{"type": "SECRET"}]}]), "input[0].content[0].type"),
        (json!([{"role": "user", "content": [{"type": "input_text"}]}]), "input[0].content[0].text"),
        (json!([{"role": "user", "content": [{"type": "input_image"}]}]), "input[0].content[0].image_url"),
        (
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": {}}]}]),
            "input[0].content[0].image_url",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_image", "file_id": "SECRET"}]}]),
            "input[0].content[0].file_id",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_file", "file_id": "SECRET"}]}]),
            "input[0].content[0].file_id",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_file", "file_url": "SECRET"}]}]),
            "input[0].content[0].file_url",
        ),
        (json!([{"role": "user", "content": [{"type": "input_file"}]}]), "input[0].content[0].file_data"),
        (json!([{"role": "user", "content": [{"type": "input_audio"}]}]), "input[0].content[0].input_audio"),
        (
            json!([{"role": "assistant", "content": [{"type": "input_image", "image_url": "a"}]}]),
            "input[0].content[0].type",
        ),
        (json!([{"type": "function_call", "name": "f", "arguments": ""}]), "input[0].call_id"),
        (json!([{"type": "function_call", "call_id": "c", "name": "", "arguments": ""}]), "input[0].name"),
        (json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]), "input[0].arguments"),
        (json!([{"type": "custom_tool_call", "call_id": "c", "name": "f"}]), "input[0].input"),
        (json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
        (json!([{"type": "function_call_output", "call_id": "c", "output": {}}]), "input[0].output"),
        (json!([{"type": "function_call_output", "output": "a"}]), "input[0].call_id"),
    ] {
        check("input", input, param);
    }
    assert_eq!(refused("{}").0, "input");
}

#[test]
fn tools_that_a_server_would_run_are_refused() {
    for kind in [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "image_generation",
        "mcp",
        "local_shell",
        "tool_search",
        "shell",
        "apply_patch",
    ] {
        check("tools", json!([{"type": "function", "name": "f"}, {"type": kind}]), "tools[1].type");
        check("tool_choice", json!({"type": kind}), "tool_choice.type");
    }
}

#[test]
fn faults_of_tools_have_a_place() {
    for (tools, param) in [
        (json!({}), "tools"),
        (json!([1]), "tools[0]"),
        (json!([{"name": "f"}]), "tools[0].type"),
        (json!([{"type": "function", "function": {"name": "f"}}]), "tools[0].name"),
        (json!([{"type": "function", "name": "f"}, {"type": "custom", "name": "f"}]), "tools[1].name"),
        (json!([{"type": "function", "name": "f", "description": 1}]), "tools[0].description"),
        (json!([{"type": "custom", "name": "f", "format": {"type": "SECRET"}}]), "tools[0].format.type"),
        (json!([{"type": "custom", "name": "f", "format": {"type": "grammar"}}]), "tools[0].format.syntax"),
        (
            json!([{"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "lark"}}]),
            "tools[0].format.definition",
        ),
        (json!([{"type": "namespace", "name": "n"}]), "tools[0].tools"),
        (json!([{"type": "namespace", "tools": []}]), "tools[0].name"),
        (json!([{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]), "tools[0].tools[0].type"),
    ] {
        check("tools", tools, param);
    }
}

#[test]
fn a_choice_means_a_tool_that_is_there() {
    for (choice, param) in [
        (json!("SECRET"), "tool_choice"),
        (json!("required"), "tool_choice"),
        (json!({"type": "function", "name": "SECRET"}), "tool_choice.name"),
        (json!({"type": "custom"}), "tool_choice.name"),
        (json!({"type": "allowed_tools", "mode": "none"}), "tool_choice.mode"),
        (json!({"type": "allowed_tools", "mode": "auto"}), "tool_choice.tools"),
        (json!({"type": "allowed_tools", "mode": "auto", "tools": []}), "tool_choice.tools"),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "name": "f"}]}),
            "tool_choice.tools[0].name",
        ),
    ] {
        check("tool_choice", choice, param);
    }
}
