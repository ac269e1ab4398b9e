//! Holds: model servers that speak OpenAI's protocol in their own way, through the whole pipeline.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use batchin_testkit::{
    Kind, Reply, TestServer, both,
    sim::{Behaviour, End},
    usd,
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{batches::until_final, inference::cost};

const EVENTS: &str = "text/event-stream";
pub(crate) const JSON: &str = "application/json";

/// A body as it comes from a model server.
pub(crate) fn raw(content_type: &'static str, body: &str) -> Behaviour {
    let pieces = vec![Bytes::copy_from_slice(body.as_bytes())];
    Behaviour::Raw { content_type, pieces, gap: Duration::ZERO, end: End::Done }
}

/// The chunks as a stream, with `[DONE]`.
pub(crate) fn streamed(chunks: &[Value]) -> Behaviour {
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    raw(EVENTS, &format!("{events}data: [DONE]\n\n"))
}

pub(crate) fn said(text: &str, reason: Value) -> Value {
    json!({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})
}

pub(crate) fn whole(usage: Value) -> Value {
    let message = json!({"role": "assistant", "content": "hello there"});
    json!({"id": "x", "object": "chat.completion", "created": 1, "model": "other",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
}

/// The JSON of each event, and whether `[DONE]` ended them.
#[track_caller]
fn events(reply: &Reply) -> (Vec<Value>, bool) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let data: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    (data.into_iter().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect(), done)
}

fn text_of(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

fn task(custom_id: &str) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    json!({ "custom_id": custom_id, "model": "chat-model", "request_body": { "messages": messages, "max_tokens": 50 } })
}

/// Runs one task to its end, and reads its line.
pub(crate) async fn run_task(server: &TestServer) -> Value {
    let made = server.post("/v1/batches", json!({ "tasks": [task("a")], "priority": "high" })).await.ok();
    let batch = until_final(server, made["id"].as_str().unwrap()).await;
    batch["tasks"][0].clone()
}

pub(crate) async fn spent(server: &TestServer) -> i64 {
    usd("1").nanos() - server.balance().await.nanos()
}

/// What a script with one of OpenAI's own packages prints, as JSON.
pub(crate) async fn told_by(server: &TestServer, program: PathBuf, script: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk");
    let run = tokio::process::Command::new(program)
        .arg(folder.join(script))
        .env("SDK_URL", server.url("/v1"))
        .env("SDK_KEY", &server.owner.key)
        .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
        .kill_on_drop(true)
        .output();
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `make test` prepares.
pub(crate) fn prepared(name: &str) -> PathBuf {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{name} is not set: this test needs what `make test` prepares; run it with that"))
}

/// A part of a tool call.
fn call(index: &Value, id: Value, name: Value, arguments: &str) -> Value {
    let function = json!({"name": name, "arguments": arguments});
    let call = json!({"index": index, "id": id, "type": "function", "function": function});
    json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": null}]})
}

/// Two calls that a server gives these numbers.
fn two_calls(first: &Value, second: &Value) -> Behaviour {
    streamed(&[
        call(first, json!("a"), json!("f"), ""),
        call(first, Value::Null, Value::Null, "{}"),
        call(second, json!("b"), json!("g"), "{"),
        call(second, Value::Null, Value::Null, "}"),
        json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
    ])
}

#[tokio::test]
async fn openai_s_own_clients_read_tool_calls_that_are_numbered_alike() {
    let server = TestServer::start().await;
    for (first, second) in [(json!(0), json!(0)), (json!(1), json!(2)), (Value::Null, Value::Null)] {
        server.sim.script_all(two_calls(&first, &second));
        let python = told_by(&server, prepared("BATCHIN_TEST_PYTHON"), "tool_calls_python.py").await;
        let node = told_by(&server, "node".into(), "tool_calls_node.mjs").await;
        let expected = json!([["a", "f", "{}"], ["b", "g", "{}"]]);
        assert_eq!((&python, &node), (&expected, &expected), "{first} {second}");
    }
    server.stop().await;
}

both! {
    async fn an_odd_member_of_a_usage_costs_nothing(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let told = json!({"prompt_tokens": 10, "completion_tokens": 5});
        let mut expected = 0;
        for usage in [
            json!({"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": []}),
            json!({"prompt_tokens": 10.0, "completion_tokens": 5e0, "prompt_tokens_details": {"cached_tokens": "4"}}),
            json!({"prompt_tokens": 10, "completion_tokens": null, "total_tokens": 15, "prompt_tokens_details": 7}),
        ] {
            server.sim.script_all(raw(JSON, &whole(usage.clone()).to_string()));
            server.chat("chat-model").max_tokens(50).await.ok();
            expected += cost(&told);
            assert_eq!(spent(&server).await, expected, "whole: {usage}");
            let last = json!({"choices": [], "usage": usage});
            server.sim.script_all(streamed(&[said("hello ", Value::Null), said("there", json!("stop")), last]));
            let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
            assert!(done && text_of(&chunks) == "hello there");
            expected += cost(&told);
            assert_eq!(spent(&server).await, expected, "streamed: {usage}");
            let line = run_task(&server).await;
            assert_eq!((&line["usage"]["prompt_tokens"], &line["usage"]["completion_tokens"]), (&json!(10), &json!(5)));
            expected = spent(&server).await;
        }
        let rows = server.get("/v1/usage/logs").await.ok();
        assert!(rows.as_array().unwrap().iter().all(|row| row["estimated"] == json!(false)), "{rows}");
        server.stop().await;
    }

    async fn a_stream_that_is_answered_whole_is_delivered_and_charged_once(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
        server.sim.script_all(raw(JSON, &whole(usage.clone()).to_string()));
        let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
        assert!(done && chunks.len() == 1, "{chunks:?}");
        assert_eq!((text_of(&chunks).as_str(), &chunks[0]["object"]), ("hello there", &json!("chat.completion.chunk")));
        assert_eq!((&chunks[0]["model"], chunks[0].get("usage")), (&json!("chat-model"), None));
        assert_eq!((spent(&server).await, server.sim.calls()), (cost(&usage), 1));
        let asked = server.chat("chat-model").max_tokens(50).stream().with("stream_options", json!({"include_usage": true}));
        let (chunks, done) = events(&asked.await);
        assert!(done && chunks.len() == 2, "{chunks:?}");
        assert_eq!((&chunks[1]["choices"], &chunks[1]["usage"]), (&json!([]), &usage));
        assert_eq!((spent(&server).await, server.sim.calls()), (2 * cost(&usage), 2));
        let line = run_task(&server).await;
        assert_eq!((&line["status"], &line["result"]["usage"]), (&json!("completed"), &usage));
        assert_eq!(line["result"]["choices"][0]["message"]["content"], "hello there");
        assert_eq!((&line["usage"]["completion_tokens"], server.sim.calls()), (&json!(5), 3));
        server.stop().await;
    }

    async fn a_whole_answer_that_comes_as_a_stream_is_put_together(backend) {
        let server = TestServer::start().on(backend).await;
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 2});
        let last = json!({"choices": [], "usage": usage});
        server.sim.script_all(streamed(&[said("hello ", json!("")), said("there", json!("stop")), last]));
        let answer = server.chat("chat-model").max_tokens(50).await.ok();
        assert_eq!((&answer["object"], &answer["usage"]), (&json!("chat.completion"), &usage));
        assert_eq!(answer["choices"][0]["message"]["content"], "hello there");
        assert_eq!(spent(&server).await, cost(&usage));
        server.stop().await;
    }

    async fn only_a_real_reason_ends_an_answer(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}});
        let good = streamed(&[said("hello ", json!("")), said("there", json!("stop")), usage.clone()]);
        let cut = streamed(&[said("hello ", json!("")), said("there", json!(""))]);
        server.sim.script_all(good.clone());
        let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
        assert!(done && text_of(&chunks) == "hello there");
        let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
        assert_eq!(reasons, [&Value::Null, &json!("stop")]);
        server.sim.script_all(cut.clone());
        let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
        assert!(!done && chunks.last().unwrap()["error"]["code"] == "upstream_error", "{chunks:?}");
        // A batch tries again, and half an answer is nobody's result.
        server.sim.script_all(good);
        server.sim.queue(cut);
        let calls = server.sim.calls();
        let line = run_task(&server).await;
        assert_eq!(line["result"]["choices"][0]["message"]["content"], "hello there");
        assert_eq!((&line["result"]["choices"][0]["finish_reason"], server.sim.calls()), (&json!("stop"), calls + 2));
        server.stop().await;
    }

    async fn reasoning_has_both_names_and_ends_are_openai_s(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        for (name, reason, expected) in [("reasoning", "abort", "stop"), ("reasoning_content", "repetition", "length")] {
            let thinks = |text: &str| json!({"id": "x", "choices": [{"index": 0, "delta": {name: text}, "finish_reason": null}]});
            let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 3}});
            let chunks = [thinks("let me"), thinks(" see"), said("there", json!(reason)), usage];
            server.sim.script_all(streamed(&chunks));
            let (told, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
            let thought = |name: &str| told.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect::<String>();
            assert!(done && thought("reasoning") == "let me see" && thought("reasoning_content") == "let me see", "{told:?}");
            assert_eq!(told.last().unwrap()["choices"][0]["finish_reason"], expected);
            let line = run_task(&server).await;
            let message = json!({"role": "assistant", "content": "there", "reasoning": "let me see", "reasoning_content": "let me see"});
            assert_eq!(line["result"]["choices"][0]["message"], message);
            assert_eq!(line["result"]["choices"][0]["finish_reason"], expected);
            let message = json!({"role": "assistant", "content": "there", name: "let me see"});
            let whole = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "other",
                "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": {"prompt_tokens": 10, "completion_tokens": 3}});
            server.sim.script_all(raw(JSON, &whole.to_string()));
            let answer = server.chat("chat-model").max_tokens(50).await.ok();
            let choice = &answer["choices"][0];
            assert_eq!((&choice["message"]["reasoning"], &choice["message"]["reasoning_content"]), (&json!("let me see"), &json!("let me see")));
            assert_eq!(choice["finish_reason"], expected);
        }
        server.stop().await;
    }

    async fn an_answer_that_ends_by_an_error_has_failed(backend) {
        let server = TestServer::start().on(backend).with_worker().with_second_sim().await;
        let message = json!({"role": "assistant", "content": "hel"});
        let failed = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "other",
            "choices": [{"index": 0, "message": message, "finish_reason": "error"}], "usage": {"prompt_tokens": 10, "completion_tokens": 1}});
        server.sim.script_all(raw(JSON, &failed.to_string()));
        for _ in 0..4 {
            let answer = server.chat("chat-model").max_tokens(3).await.ok();
            assert_eq!(answer["choices"][0]["finish_reason"], "length", "the other server's");
        }
        assert!(server.sim.calls() > 0, "equals are asked in turn");
        for sim in std::iter::once(&server.sim).chain(&server.other_sim) {
            sim.script_all(streamed(&[said("hel", Value::Null), said("", json!("error"))]));
        }
        let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
        assert!(!done && text_of(&chunks) == "hel", "{chunks:?}");
        assert_eq!(chunks.last().unwrap()["error"]["code"], "upstream_error");
        server.stop().await;
    }

    async fn a_batch_counts_reasoning(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}});
        let last = json!({"choices": [], "usage": usage});
        server.sim.script_all(streamed(&[said("hello", json!("stop")), last]));
        let made = server.post("/v1/batches", json!({ "tasks": [task("a"), task("b")] })).await.ok();
        let id = made["id"].as_str().unwrap();
        let batch = until_final(&server, id).await;
        assert_eq!(batch["tasks"][1]["result"]["usage"], usage);
        let batch = server.get(&format!("/openai/v1/batches/{id}")).await.ok();
        assert_eq!(batch["usage"], json!({
            "input_tokens": 20, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": 10, "output_tokens_details": { "reasoning_tokens": 6 }, "total_tokens": 30,
        }));
        server.stop().await;
    }

    async fn no_chunk_without_choices_leaves_unless_it_was_asked_for(backend) {
        let server = TestServer::start().on(backend).await;
        for odd in [json!({"prompt_tokens": 0, "completion_tokens": 0}), json!({"prompt_tokens": {}}), json!([]), Value::Null] {
            let mut first = said("hello", Value::Null);
            first["error"] = json!("");
            first["usage"] = Value::Null;
            let last = json!({"choices": [], "usage": odd});
            server.sim.script_all(streamed(&[json!({}), first, json!({}), said("", json!("stop")), last]));
            let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
            assert!(done && chunks.len() == 2, "{odd}: {chunks:?}");
            assert!(chunks.iter().all(|chunk| chunk["choices"][0].is_object() && chunk.get("usage").is_none()), "{chunks:?}");
        }
        server.stop().await;
    }

    async fn tool_calls_that_are_numbered_alike_are_told_apart(backend) {
        let server = TestServer::start().on(backend).await;
        for (first, second) in [(json!(0), json!(0)), (json!(1), json!(2)), (Value::Null, Value::Null), (json!(1), json!(1))] {
            server.sim.script_all(two_calls(&first, &second));
            let (chunks, done) = events(&server.chat("chat-model").max_tokens(50).stream().await);
            assert!(done);
            let calls = chunks.iter().filter_map(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0/index"));
            assert_eq!(calls.collect::<Vec<_>>(), [0, 0, 1, 1], "{first} {second}");
        }
        server.stop().await;
    }

    async fn every_result_line_has_a_result_and_an_error(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(Behaviour::Hang);
        let made = server.post("/v1/batches", json!({ "tasks": [task("a"), task("b")] })).await.ok();
        let id = made["id"].as_str().unwrap();
        server.sim.until_calls(1).await;
        server.post(&format!("/v1/batches/{id}/cancel"), json!({})).await.ok();
        let stopped = until_final(&server, id).await;
        server.sim.script_all(Behaviour::default());
        let done = run_task(&server).await;
        let refusal = batchin_testkit::sim::Refusal::vllm(400, "prompt too long");
        server.sim.script_all(Behaviour::Refuse(refusal));
        let failed = run_task(&server).await;
        let results = server.get(&format!("/v1/batches/{id}/results")).await.text();
        let lines: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for line in lines.iter().chain([&done, &failed]).chain(stopped["tasks"].as_array().unwrap()) {
            let line = line.as_object().unwrap();
            assert!(line["result"].is_null() != line["error"].is_null(), "{line:?}");
        }
        assert_eq!((&lines[0]["status"], &lines[0]["error"]["code"]), (&json!("cancelled"), &json!("batch_cancelled")));
        assert_eq!(failed["error"]["message"], "prompt too long");
        server.stop().await;
    }
}

/// As llama.cpp's server does: each answer's own count, the last of which stands beside them all.
#[tokio::test]
async fn all_answers_are_counted_where_a_server_counts_one() {
    let server = TestServer::start().with_kind(Kind::LLAMACPP).with_worker().await;
    let one = json!({"prompt_tokens": 33, "completion_tokens": 8, "total_tokens": 41, "prompt_tokens_details": {"cached_tokens": 32}});
    let text = "forty bytes of text, which are 10 tokens";
    let choice =
        |index| json!({"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let answer = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "other",
        "choices": [choice(0), choice(1)], "usage": one});
    server.sim.script_all(raw(JSON, &answer.to_string()));
    let body = |stream: bool| {
        json!({"model": "chat-model", "n": 2, "max_tokens": 50, "stream": stream,
            "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "hi"}]})
    };
    let told = server.post("/v1/chat/completions", body(false)).await.ok();
    assert_eq!(
        (&told["usage"]["prompt_tokens"], &told["usage"]["completion_tokens"]),
        (&json!(33), &json!(20)),
        "{told}"
    );
    let whole = spent(&server).await;
    assert_eq!(whole, 33 * 20 + 20 * 80);

    let piece = |index: u64, text: &str, reason: Value| json!({"id": "x", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": reason}]});
    let end = |index| [piece(index, "", json!("stop")), json!({"id": "x", "choices": [], "usage": one})];
    let pieces = [0, 1].map(|index| {
        [piece(index, "a", Value::Null), piece(index, " b", Value::Null), piece(index, " c", Value::Null)]
    });
    let chunks: Vec<_> = pieces.into_iter().flatten().chain(end(0)).chain(end(1)).collect();
    server.sim.script_all(streamed(&chunks));
    let (chunks, done) = events(&server.post("/v1/chat/completions", body(true)).await);
    let usages: Vec<_> = chunks.iter().filter(|chunk| chunk["usage"].is_object()).collect();
    assert!(done && usages.len() == 1, "{chunks:?}");
    assert_eq!(
        (&usages[0]["usage"]["prompt_tokens"], &usages[0]["usage"]["completion_tokens"]),
        (&json!(33), &json!(6))
    );
    assert_eq!(spent(&server).await - whole, 33 * 20 + 6 * 80);
    // A task is asked for as a stream, and gets what is there.
    server.sim.script_all(raw(JSON, &answer.to_string()));
    let before = spent(&server).await;
    let mut asked = body(false);
    asked.as_object_mut().unwrap().remove("stream_options");
    let task = json!({"custom_id": "a", "model": "chat-model", "request_body": asked});
    let batch = server.post("/v1/batches", json!({"tasks": [task], "priority": "low"})).await.ok();
    let ended = crate::batches::until_final(&server, batch["id"].as_str().unwrap()).await;
    assert_eq!(ended["tasks"][0]["result"]["usage"]["completion_tokens"], 20, "{ended}");
    assert_eq!(spent(&server).await - before, (33 * 20 + 20 * 80) / 2);
    // One answer is counted as it is told.
    server.sim.script_all(raw(JSON, &whole_of(&one)));
    let before = spent(&server).await;
    server.chat("chat-model").max_tokens(50).await.ok();
    assert_eq!(spent(&server).await - before, 33 * 20 + 8 * 80);
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn usage_that_comes_before_the_last_end_is_told_once() {
    let server = TestServer::start().await;
    let usage = json!({"prompt_tokens": 33, "completion_tokens": 8, "total_tokens": 41});
    let piece = |text: &str, reason: Value| json!({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]});
    let early = json!({"id": "x", "choices": [], "usage": usage});
    server.sim.script_all(streamed(&[piece("a b c", Value::Null), early, piece("", json!("stop"))]));
    let body = json!({"model": "chat-model", "max_tokens": 50, "stream": true,
        "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "hi"}]});
    let (chunks, done) = events(&server.post("/v1/chat/completions", body).await);
    let told: Vec<_> = chunks.iter().filter(|chunk| chunk["usage"].is_object()).collect();
    assert!(done && told.len() == 1, "{chunks:?}");
    assert_eq!((&told[0]["usage"]["completion_tokens"], &told[0]["choices"]), (&json!(8), &json!([])));
    assert_eq!(chunks.last(), Some(told[0]), "after the last choice's end");
    assert_eq!(spent(&server).await, 33 * 20 + 8 * 80);
    server.ledger_check().await;
    server.stop().await;
}

fn whole_of(usage: &Value) -> String {
    whole(usage.clone()).to_string()
}
