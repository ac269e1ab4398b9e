//! Holds: calls of other protocols, asked of model servers that have these themselves.

use batchin_testkit::{
    TestServer, both,
    sim::{Answer, Behaviour, End, Refusal, UsageMode},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    batches::until_final,
    odd_servers::{JSON, raw, spent},
    retold::{both_calls, message, messages_error, named_events, response, streamed},
};

/// Three words at 20 nano-dollars and five tokens at 80.
const COST: i64 = 3 * 20 + 5 * 80;

fn prefix(path: &str) -> &'static str {
    if path == "/v1/responses" { "resp_" } else { "msg_" }
}

/// What the server was sent last.
fn last_sent(server: &TestServer) -> (String, Value) {
    let request = server.sim.requests().pop().unwrap();
    (request.path.clone(), serde_json::from_slice(&request.body).unwrap())
}

fn events_of(events: &[Value]) -> Behaviour {
    let text: String =
        events.iter().map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())).collect();
    raw("text/event-stream", &text)
}

both! {
    async fn a_native_answer_passes_under_our_names_and_costs_what_it_says(backend) {
        let server = TestServer::start().on(backend).natively().await;
        let mut expected = 0;
        for (path, body) in both_calls() {
            let answer = server.post(path, body.clone()).await.ok();
            expected += COST;
            assert!(answer["id"].as_str().unwrap().starts_with(prefix(path)) && answer["id"] != "resp_sim", "{answer}");
            assert_eq!((&answer["model"], &answer["usage"]["output_tokens"]), (&json!("chat-model"), &json!(5)));
            assert_eq!((last_sent(&server).0.as_str(), spent(&server).await), (path, expected));

            let events = named_events(&server.post(path, streamed(body)).await);
            expected += COST;
            let (first, last) = (&events[0], &events[events.len() - 1]);
            let text = |name: &str, member: &str| -> String {
                let deltas = events.iter().filter(|(event, _)| event == name);
                deltas.map(|(_, data)| data.pointer(member).unwrap().as_str().unwrap()).collect()
            };
            if path == "/v1/responses" {
                assert_eq!((first.0.as_str(), last.0.as_str()), ("response.created", "response.incomplete"));
                assert!(events.iter().enumerate().all(|(at, (_, data))| data["sequence_number"] == at), "{events:?}");
                let told = &last.1["response"];
                assert_eq!((&told["id"], &told["model"]), (&first.1["response"]["id"], &json!("chat-model")));
                assert_eq!(text("response.output_text.delta", "/delta"), told["output"][0]["content"][0]["text"]);
                assert_eq!(told["usage"]["output_tokens_details"]["tool_output_tokens"], 0, "as its server tells it");
            } else {
                assert_eq!((first.0.as_str(), last.0.as_str()), ("message_start", "message_stop"));
                let begun = &first.1["message"];
                assert!(begun["id"].as_str().unwrap().starts_with("msg_") && begun["id"] != "msg_sim", "{begun}");
                assert_eq!((&begun["model"], text("content_block_delta", "/delta/text").len()), (&json!("chat-model"), 28));
                assert_eq!(events[events.len() - 2].1["usage"], json!({ "input_tokens": 3, "output_tokens": 5 }));
            }
            assert_eq!(spent(&server).await, expected, "{path}");
            let rows = server.get("/v1/usage/logs?limit=2").await.ok();
            let is_whole = |row: &Value| row["endpoint"] == path && row["estimated"] == false;
            assert!(rows.as_array().unwrap().iter().all(is_whole), "{rows}");
        }
        server.ledger_check().await;
        server.stop().await;
    }

    async fn a_native_stream_that_breaks_off_says_so_and_costs_what_came(backend) {
        let server = TestServer::start().on(backend).natively().await;
        let boom = |kind: &str| json!({ "type": kind, "response": { "error": { "code": "server_error", "message": "boom" },
            "usage": { "input_tokens": 3, "output_tokens": 2 } }, "error": { "message": "boom" } });
        let mut expected = 0;
        for (end, is_counted) in [(End::Cut, false), (End::Silent, false), (End::ErrorEvent(boom("response.failed").to_string()), true)] {
            server.sim.script_all(Behaviour::Answer(Answer { end: end.clone(), ..Answer::of(3) }));
            let events = named_events(&server.post("/v1/responses", streamed(response("a b c"))).await);
            let (name, data) = events.last().unwrap();
            assert_eq!((name.as_str(), &data["response"]["status"]), ("response.failed", &json!("failed")), "{data}");
            assert_eq!((&data["response"]["model"], &data["response"]["error"]["code"]), (&json!("chat-model"), &json!("server_error")));
            assert_eq!(data["response"]["id"], events[0].1["response"]["id"]);
            // The prompt by its text, of which each four bytes are a token, and the pieces; or what the server counted.
            expected += if is_counted { 3 * 20 + 2 * 80 } else { 9 * 20 + 3 * 80 };
            assert_eq!(spent(&server).await, expected, "{end:?}");
        }
        for end in [End::Cut, End::Silent, End::ErrorEvent(boom("error").to_string())] {
            server.sim.script_all(Behaviour::Answer(Answer { end, ..Answer::of(3) }));
            let events = named_events(&server.post("/v1/messages", streamed(message("a b c"))).await);
            let (name, data) = events.last().unwrap();
            assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("api_error")));
            expected += 3 * 20 + 3 * 80;
            assert_eq!(spent(&server).await, expected);
        }
        let rows = server.get("/v1/usage/logs?limit=3").await.ok();
        assert!(rows.as_array().unwrap().iter().all(|row| row["estimated"] == true), "{rows}");
        server.ledger_check().await;
        server.stop().await;
    }

    async fn native_calls_run_in_batches(backend) {
        let server = TestServer::start().on(backend).natively().with_worker().await;
        let task = |(path, body)| json!({ "custom_id": path, "model": "chat-model", "url": path, "request_body": body });
        let tasks: Vec<Value> = both_calls().into_iter().map(task).collect();
        let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(2)), "{batch}");
        for (task, (path, kind)) in batch["tasks"].as_array().unwrap().iter().zip([("/v1/responses", "object"), ("/v1/messages", "type")]) {
            let result = &task["result"];
            assert!(result["id"].as_str().unwrap().starts_with(prefix(path)) && result[kind].is_string(), "{task}");
            assert_eq!(result["usage"]["output_tokens"], 5, "{task}");
        }
        assert!(server.sim.requests().iter().all(|request| request.path != "/v1/chat/completions"));
        assert_eq!(spent(&server).await, 2 * COST);
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_server_is_sent_what_is_held_for_and_stores_nothing() {
    let server = TestServer::start().natively().await;
    let mut body = response("a");
    let more = json!({ "store": false, "background": false, "metadata": { "ticket": "7" }, "priority": -9, "instructions": "Be brief.",
        "input": [{ "type": "item_reference", "id": "rs_1" }, { "type": "reasoning", "summary": [], "encrypted_content": "x" },
            { "role": "user", "content": "a" }], "reasoning": { "effort": "low" } });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = server.post("/v1/responses", body.clone()).await.ok();
    assert_eq!(answer["metadata"], json!({ "ticket": "7" }));
    let (path, sent) = last_sent(&server);
    assert_eq!(
        (path.as_str(), &sent["store"], &sent["max_output_tokens"]),
        ("/v1/responses", &json!(false), &json!(5))
    );
    assert_eq!((&sent["instructions"], &sent["reasoning"]), (&body["instructions"], &body["reasoning"]));
    assert_eq!(sent["input"].as_array().unwrap()[..], body["input"].as_array().unwrap()[1..]);
    assert!(
        ["metadata", "background", "priority", "messages", "stream_options"]
            .iter()
            .all(|name| sent.get(name).is_none()),
        "{sent}"
    );
    // The model's own limit, where the body has none or a larger one.
    for limit in [Value::Null, json!(1_000_000)] {
        body["max_output_tokens"] = limit;
        server.post("/v1/responses", body.clone()).await.ok();
        assert_eq!(last_sent(&server).1["max_output_tokens"], 2_048);
    }
    let mut body = message("a");
    let more = json!({ "system": "Be brief.", "speed": "fast", "thinking": { "type": "enabled", "budget_tokens": 1024 },
        "max_tokens": 1_000_000, "service_tier": "auto" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/messages", body.clone()).await.ok();
    let (path, sent) = last_sent(&server);
    assert_eq!(
        (path.as_str(), &sent["max_tokens"], &sent["thinking"]),
        ("/v1/messages", &json!(2_048), &body["thinking"])
    );
    assert_eq!((&sent["system"], &sent["messages"]), (&body["system"], &body["messages"]));
    assert!(
        ["speed", "service_tier", "max_output_tokens", "store"].iter().all(|name| sent.get(name).is_none()),
        "{sent}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_cache_is_read_from_either_protocol_and_nothing_is_charged_beyond_the_hold() {
    let server = TestServer::start().natively().with_cache_prices("0.005", "0.03").await;
    let said = json!([{ "type": "output_text", "text": "Hello." }]);
    let output =
        json!([{ "type": "message", "id": "msg_x", "role": "assistant", "status": "completed", "content": said }]);
    let of = |usage: Value| {
        json!({ "id": "resp_x", "object": "response", "model": "/models/secret", "status": "completed",
        "output": output, "usage": usage })
    };
    let counts = json!({ "input_tokens": 50, "input_tokens_details": { "cached_tokens": 20, "cache_write_tokens": 10 },
        "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 2 }, "total_tokens": 55 });
    // 20 at $0.02 a million, 20 at $0.005, 10 at $0.03, and 5 of the answer at $0.08.
    const CACHED: i64 = 400 + 100 + 300 + 400;
    server.sim.script_all(raw(JSON, &of(counts.clone()).to_string()));
    let answer = server.post("/v1/responses", response("a")).await.ok();
    assert_eq!((&answer["usage"], &answer["model"], spent(&server).await), (&counts, &json!("chat-model"), CACHED));
    let counts = json!({ "input_tokens": 20, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 10, "output_tokens": 5 });
    let content = json!([{ "type": "text", "text": "Hello." }]);
    let of_message = |usage: Value| {
        json!({ "id": "msg_x", "type": "message", "role": "assistant", "model": "/models/secret",
        "content": content, "stop_reason": "end_turn", "stop_sequence": null, "usage": usage })
    };
    server.sim.script_all(raw(JSON, &of_message(counts.clone()).to_string()));
    let answer = server.post("/v1/messages", message("a")).await.ok();
    assert_eq!((&answer["usage"], &answer["model"], spent(&server).await), (&counts, &json!("chat-model"), 2 * CACHED));

    let beyond = json!({ "input_tokens": 3, "output_tokens": 1_000_000 });
    for (path, body, answer) in
        [("/v1/responses", response("a"), of(beyond.clone())), ("/v1/messages", message("a"), of_message(beyond))]
    {
        server.sim.script_all(raw(JSON, &answer.to_string()));
        let before = spent(&server).await;
        assert_eq!(server.post(path, body).await.ok()["usage"]["output_tokens"], 5);
        assert_eq!(spent(&server).await - before, 3 * 20 + 5 * 80, "{path}");
    }
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_counts_nothing_or_does_not_stop_is_billed_as_any_other() {
    let server = TestServer::start().natively().await;
    for (path, body) in both_calls() {
        let silent = Answer { usage: UsageMode::Never, ..Answer::of(5) };
        server.sim.script_all(Behaviour::Answer(silent));
        let before = spent(&server).await;
        let events = named_events(&server.post(path, streamed(body.clone())).await);
        let told =
            if path == "/v1/responses" { &events[events.len() - 1].1["response"] } else { &events[events.len() - 2].1 };
        assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["output_tokens"]), (&json!(9), &json!(5)), "{told}");
        assert_eq!(spent(&server).await - before, 9 * 20 + 5 * 80, "{path}");

        let word = "on and on and on ".repeat(200);
        let mut endless = match path {
            "/v1/responses" => vec![
                json!({ "type": "response.created", "response": { "id": "x", "object": "response", "output": [] } }),
            ],
            _ => vec![
                json!({ "type": "message_start", "message": { "id": "x", "content": [] } }),
                json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            ],
        };
        endless.extend((0..50).map(|_| match path {
            "/v1/responses" => json!({ "type": "response.output_text.delta", "delta": word }),
            _ => json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } }),
        }));
        server.sim.script_all(events_of(&endless));
        let before = spent(&server).await;
        let events = named_events(&server.post(path, streamed(body)).await);
        let names: Vec<&str> = events.iter().rev().take(3).map(|(name, _)| name.as_str()).collect();
        match path {
            "/v1/responses" => {
                let (name, data) = &events[events.len() - 1];
                assert_eq!(
                    (name.as_str(), &data["response"]["usage"]["output_tokens"]),
                    ("response.incomplete", &json!(5))
                );
                assert_eq!(data["response"]["incomplete_details"]["reason"], "max_output_tokens");
            }
            _ => assert_eq!(names, ["message_stop", "message_delta", "content_block_stop"]),
        }
        assert_eq!(spent(&server).await - before, 9 * 20 + 5 * 80, "no more than was held for");
    }
    server.stop().await;
}

#[tokio::test]
async fn native_calls_are_refused_as_retold_ones_are() {
    let server = TestServer::start().natively().await;
    for (member, value) in [
        ("previous_response_id", json!("resp_1")),
        ("store", json!(true)),
        ("background", json!(true)),
        ("tools", json!([{ "type": "web_search" }])),
    ] {
        let mut body = response("a");
        body[member] = value;
        let error = server.post("/v1/responses", body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert!(error["param"].as_str().unwrap().starts_with(member), "{error}");
    }
    let mut body = message("a");
    body["tools"] = json!([{ "type": "web_search_20250305" }]);
    messages_error(&server.post("/v1/messages", body).await, StatusCode::BAD_REQUEST, "invalid_request_error");
    let anonymous = server.anonymous(Method::POST, "/v1/messages").json(message("a")).await;
    messages_error(&anonymous, StatusCode::UNAUTHORIZED, "authentication_error");
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));

    server.sim.script_all(Behaviour::Refuse(Refusal::vllm(400, "prompt too long for http://10.0.0.5:8000/v1")));
    let reply = server.post("/v1/responses", response("a")).await;
    assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["message"], "prompt too long for [address]");
    let reply = server.post("/v1/messages", message("a")).await;
    let said = messages_error(&reply, StatusCode::BAD_REQUEST, "invalid_request_error");
    assert_eq!((said.as_str(), spent(&server).await), ("prompt too long for [address]", 0));
    server.stop().await;
}

#[tokio::test]
async fn a_server_without_the_protocol_is_left_for_another() {
    let server = TestServer::start().natively().with_second_sim().await;
    server.sim.speak_natively(false);
    for (path, body) in both_calls() {
        for _ in 0..3 {
            server.post(path, body.clone()).await.ok();
        }
    }
    assert_eq!(spent(&server).await, 6 * COST);
    server.other_sim.as_ref().unwrap().speak_natively(false);
    for (path, body) in both_calls() {
        let reply = server.post(path, body).await;
        match path {
            "/v1/responses" => drop(reply.error(StatusCode::BAD_GATEWAY, "upstream_error")),
            _ => drop(messages_error(&reply, StatusCode::BAD_GATEWAY, "api_error")),
        }
    }
    assert_eq!(spent(&server).await, 6 * COST);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_breaks_off_before_a_word_is_left_for_another() {
    let server = TestServer::start().natively().with_second_sim().await;
    server.sim.script_all(Behaviour::Answer(Answer { end: End::Cut, ..Answer::of(0) }));
    server.other_sim.as_ref().unwrap().script_all(Behaviour::Answer(Answer::of(5)));
    for (path, body) in both_calls() {
        for _ in 0..3 {
            let events = named_events(&server.post(path, streamed(body.clone())).await);
            assert!(["response.completed", "message_stop"].contains(&events.last().unwrap().0.as_str()), "{events:?}");
        }
    }
    assert!(server.sim.calls() > 0, "it was asked, and left");
    assert_eq!(spent(&server).await, 6 * COST);
    server.ledger_check().await;
    server.stop().await;
}
