//! Holds: calls of other protocols, answered by model servers that have chats alone.

use std::time::Duration;

use batchin_testkit::{
    Reply, TestServer, both,
    sim::{Answer, Behaviour, End, Refusal},
    usd,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    batches::until_final,
    inference::cost,
    odd_servers::{prepared, told_by},
};

pub(crate) fn response(input: &str) -> Value {
    json!({ "model": "chat-model", "input": input, "max_output_tokens": 5 })
}

pub(crate) fn message(text: &str) -> Value {
    json!({ "model": "chat-model", "max_tokens": 5, "messages": [{ "role": "user", "content": text }] })
}

/// Both protocols: the path, and a body whose answer has five tokens.
pub(crate) fn both_calls() -> [(&'static str, Value); 2] {
    [("/v1/responses", response("a b c")), ("/v1/messages", message("a b c"))]
}

pub(crate) fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// Each event's name and data, which says the same name.
#[track_caller]
pub(crate) fn named_events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let events = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("{text}")).split("\n\n");
    let read = |event: &str| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        Some((name.to_owned(), data))
    };
    events
        .filter(|event| !event.starts_with(':'))
        .map(|event| read(event).unwrap_or_else(|| panic!("{event}")))
        .collect()
}

/// What a call cost by what its answer says.
fn cost_told(answer: &Value) -> i64 {
    let usage = &answer["usage"];
    cost(&json!({ "prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"] }))
}

/// What is wrong, as Anthropic's clients read it.
#[track_caller]
pub(crate) fn messages_error(reply: &Reply, status: StatusCode, kind: &str) -> String {
    let body = reply.json();
    assert_eq!((reply.status, &body["type"], &body["error"]["type"]), (status.as_u16(), &json!("error"), &json!(kind)));
    assert_eq!(
        (reply.header("x-request-id"), &body["request_id"]),
        (reply.header("request-id"), &json!(reply.header("request-id")))
    );
    body["error"]["message"].as_str().unwrap().to_owned()
}

async fn spent(server: &TestServer) -> i64 {
    usd("1").nanos() - server.balance().await.nanos()
}

both! {
    async fn a_retold_call_is_charged_as_its_chat(backend) {
        let server = TestServer::start().on(backend).await;
        let mut expected = 0;
        for (path, body) in both_calls() {
            for base in ["", "/openai"] {
                let answer = server.post(&format!("{base}{path}"), body.clone()).await.ok();
                assert_eq!((&answer["model"], &answer["usage"]["output_tokens"]), (&json!("chat-model"), &json!(5)));
                expected += cost_told(&answer);
            }
            let events = named_events(&server.post(path, streamed(body)).await);
            let (first, last) = (&events[0], &events[events.len() - 1]);
            if path == "/v1/responses" {
                assert_eq!((first.0.as_str(), last.0.as_str()), ("response.created", "response.incomplete"));
                assert!(first.1["response"]["id"].as_str().unwrap().starts_with("resp_"), "{first:?}");
                expected += cost_told(&last.1["response"]);
            } else {
                assert_eq!((first.0.as_str(), last.0.as_str()), ("message_start", "message_stop"));
                assert!(first.1["message"]["id"].as_str().unwrap().starts_with("msg_"), "{first:?}");
                let delta = &events[events.len() - 2];
                assert_eq!((delta.0.as_str(), &delta.1["delta"]["stop_reason"]), ("message_delta", &json!("max_tokens")));
                expected += cost_told(&delta.1);
            }
            assert_eq!(spent(&server).await, expected, "{path}");
            let rows = server.get("/v1/usage/logs?limit=3").await.ok();
            assert!(rows.as_array().unwrap().iter().all(|row| row["endpoint"] == path), "{rows}");
        }
        server.ledger_check().await;
        server.stop().await;
    }

    async fn a_retold_answer_is_given_again_under_its_key(backend) {
        let server = TestServer::start().on(backend).await;
        for (path, body) in both_calls() {
            for body in [body.clone(), streamed(body)] {
                let key = format!("{path}{}", body["stream"]);
                let ask = |body: Value| server.post(path, body).header("idempotency-key", &key);
                let (first, again) = (ask(body.clone()).await, ask(body.clone()).await);
                assert_eq!((again.status, &again.body), (200, &first.body));
                assert_eq!(again.header("idempotent-replayed"), "true");
                let mut other = body;
                other["temperature"] = json!(0.5);
                assert_eq!(ask(other).await.status, 409);
            }
        }
        assert_eq!(server.sim.calls(), 4, "each ran once");
        server.stop().await;
    }

    async fn a_retold_stream_that_breaks_off_says_so_and_costs_what_came(backend) {
        let server = TestServer::start().on(backend).await;
        let failing = [End::Cut, End::Silent, End::ErrorEvent(r#"{"error":{"message":"boom","code":500}}"#.to_owned())];
        let mut before = 0;
        for end in failing {
            server.sim.script_all(Behaviour::Answer(Answer { end, ..Answer::of(3) }));
            for (path, body) in both_calls() {
                let events = named_events(&server.post(path, streamed(body)).await);
                let (name, data) = events.last().unwrap();
                match path {
                    "/v1/responses" => {
                        let response = &data["response"];
                        assert_eq!((name.as_str(), &response["status"]), ("response.failed", &json!("failed")));
                        assert_eq!(response["error"]["code"], "server_error", "{response}");
                    }
                    _ => assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("api_error"))),
                }
                let now = spent(&server).await;
                assert!(now > before, "three tokens came");
                before = now;
            }
        }
        server.ledger_check().await;
        server.stop().await;
    }

    async fn tasks_may_be_calls_of_other_protocols(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let tasks: Vec<Value> = both_calls()
            .into_iter()
            .map(|(path, mut body)| {
                body.as_object_mut().unwrap().remove("model");
                json!({ "custom_id": path, "model": "chat-model", "url": path, "request_body": body })
            })
            .collect();
        let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(2)), "{batch}");
        for (task, (object, word)) in batch["tasks"].as_array().unwrap().iter().zip([("response", "object"), ("message", "type")]) {
            assert_eq!((&task["result"][word], &task["result"]["usage"]["output_tokens"]), (&json!(object), &json!(5)), "{task}");
        }
        let bad = json!({ "custom_id": "a", "model": "chat-model", "url": "/v1/responses",
            "request_body": { "input": "x", "previous_response_id": "resp_1" } });
        let refused = server.post("/v1/batches", json!({ "tasks": [bad] })).await;
        let error = refused.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "tasks[0].request_body.previous_response_id", "{error}");
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn refusals_have_the_shape_of_their_protocol_and_its_names() {
    let server = TestServer::start().with_settings(|settings| settings.max_body_bytes = 10_000).await;
    let post = |path: &str, body: Value| server.post(path, body);
    for (path, body) in both_calls() {
        let mut unknown = body.clone();
        unknown["model"] = "gpt-99".into();
        let mut long = body.clone();
        long["user"] = "x".repeat(20_000).into();
        let anonymous = server.anonymous(Method::POST, path).json(body.clone()).await;
        let (unknown, long, broken) =
            (post(path, unknown).await, post(path, long).await, server.call(Method::POST, path).body("{").await);
        if path == "/v1/responses" {
            anonymous.error(StatusCode::UNAUTHORIZED, "unauthorized");
            unknown.error(StatusCode::NOT_FOUND, "model_not_found");
            long.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
            broken.error(StatusCode::BAD_REQUEST, "invalid_request");
        } else {
            messages_error(&anonymous, StatusCode::UNAUTHORIZED, "authentication_error");
            assert!(messages_error(&unknown, StatusCode::NOT_FOUND, "not_found_error").contains("gpt-99"));
            messages_error(&long, StatusCode::PAYLOAD_TOO_LARGE, "request_too_large");
            messages_error(&broken, StatusCode::BAD_REQUEST, "invalid_request_error");
        }
    }
    for (member, value) in [
        ("max_output_tokens", json!("many")),
        ("previous_response_id", json!("resp_1")),
        ("store", json!(true)),
        ("tools", json!([{ "type": "web_search" }])),
        ("temperature", json!(9)),
    ] {
        let mut body = response("a");
        body[member] = value;
        let error = post("/v1/responses", body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert!(error["param"].as_str().unwrap().starts_with(member), "{error}");
    }
    for (member, value) in [("max_tokens", json!(0)), ("tools", json!([{ "type": "web_search_20250305" }]))] {
        let mut body = message("a");
        body[member] = value;
        let said = messages_error(&post("/v1/messages", body).await, StatusCode::BAD_REQUEST, "invalid_request_error");
        assert!(said.contains(member.trim_end_matches('s')), "{said}");
    }
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn who_cannot_pay_is_told_in_the_protocol_of_the_call() {
    let server = TestServer::start().with_balance("0.0000001").await;
    let reply = server.post("/v1/responses", response("a")).await;
    reply.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    let reply = server.post("/v1/messages", message("a")).await;
    messages_error(&reply, StatusCode::PAYMENT_REQUIRED, "billing_error");
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_that_comes_late_is_an_event_of_the_protocol() {
    let server = TestServer::start().with_settings(|settings| settings.keep_alive = Duration::from_millis(50)).await;
    for (path, body) in both_calls() {
        let failing = "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n";
        let (content_type, pieces) = ("text/event-stream", vec![failing.into()]);
        let slow = Behaviour::Raw { content_type, pieces, gap: Duration::from_millis(400), end: End::Done };
        server.sim.script_all(slow);
        let reply = server.post(path, streamed(body)).await;
        let events = named_events(&reply);
        assert!(reply.text().starts_with(": keep-alive"), "{}", reply.text());
        let (name, data) = events.last().unwrap();
        let said = if path == "/v1/responses" { &data["message"] } else { &data["error"]["message"] };
        assert!(name == "error" && said.is_string(), "{name} {data}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_the_model_server_refuses_is_told_in_the_protocol_of_the_call() {
    let server = TestServer::start().await;
    server.sim.script_all(Behaviour::Refuse(Refusal::vllm(400, "prompt too long for http://10.0.0.5:8000/v1")));
    let reply = server.post("/v1/responses", response("a")).await;
    assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["message"], "prompt too long for [address]");
    let reply = server.post("/v1/messages", message("a")).await;
    let said = messages_error(&reply, StatusCode::BAD_REQUEST, "invalid_request_error");
    assert_eq!(said, "prompt too long for [address]");
    server.stop().await;
}

#[tokio::test]
async fn model_servers_are_asked_a_chat_with_the_client_s_own_members() {
    let server = TestServer::start().await;
    let mut body = response("hello");
    body["instructions"] = "be brief".into();
    body["seed"] = 7.into();
    server.post("/v1/responses", body).await.ok();
    let mut body = message("hello");
    body["system"] = "be brief".into();
    body["seed"] = 7.into();
    server.post("/v1/messages", body).await.ok();
    for request in server.sim.requests() {
        assert_eq!(request.path, "/v1/chat/completions");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["messages"][0], json!({ "role": "system", "content": "be brief" }), "{body}");
        assert_eq!(body["messages"][1], json!({ "role": "user", "content": "hello" }), "{body}");
        assert_eq!((&body["seed"], &body["max_tokens"]), (&json!(7), &json!(5)), "{body}");
        assert!(body.get("input").is_none() && body.get("max_output_tokens").is_none(), "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_counted_before_a_message_is_sent() {
    let server = TestServer::start().await;
    let mut body = message(&"word ".repeat(400));
    body.as_object_mut().unwrap().remove("max_tokens");
    let counted = server.post("/v1/messages/count_tokens", body.clone()).await.ok();
    let tokens = counted["input_tokens"].as_u64().unwrap();
    assert!((450..600).contains(&tokens), "{counted}");
    body["model"] = "gpt-99".into();
    let unknown = server.post("/v1/messages/count_tokens", body.clone()).await;
    messages_error(&unknown, StatusCode::NOT_FOUND, "not_found_error");
    let anonymous = server.anonymous(Method::POST, "/v1/messages/count_tokens").json(body).await;
    messages_error(&anonymous, StatusCode::UNAUTHORIZED, "authentication_error");
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn models_are_listed_as_each_protocol_lists_them() {
    let server = TestServer::start().await;
    let ours = server.get("/v1/models").await.ok();
    let theirs = server.get("/v1/models").header("anthropic-version", "2023-06-01").await.ok();
    let ids =
        |list: &Value| list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&ours), ids(&theirs));
    assert_eq!((&theirs["has_more"], &theirs["last_id"]), (&json!(false), ids(&ours).last().unwrap()));
    let one = server.get("/v1/models/chat-model").header("anthropic-version", "2023-06-01").await.ok();
    assert_eq!((&one["type"], &one["id"]), (&json!("model"), &json!("chat-model")));
    server.stop().await;
}

/// The answer of a model that thinks and then calls `weather`, whole or streamed.
fn calling(stream: bool) -> Behaviour {
    let function = |arguments: &str| json!({ "name": "weather", "arguments": arguments });
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 });
    if !stream {
        let call = json!({ "id": "call_1", "type": "function", "function": function(r#"{"city":"Oslo"}"#) });
        let message =
            json!({ "role": "assistant", "content": null, "reasoning_content": "Which city?", "tool_calls": [call] });
        return whole_of(message, "tool_calls", usage);
    }
    let part = |more: Value| json!({ "choices": [{ "index": 0, "delta": more, "finish_reason": null }] });
    let call = |id: Value, function: Value| {
        part(json!({ "tool_calls": [{ "index": 0, "id": id, "type": "function", "function": function }] }))
    };
    stream_of(&[
        part(json!({ "role": "assistant", "content": "" })),
        part(json!({ "reasoning_content": "Which " })),
        part(json!({ "reasoning_content": "city?" })),
        call(json!("call_1"), function("")),
        call(Value::Null, json!({ "arguments": "{\"city\":" })),
        call(Value::Null, json!({ "arguments": "\"Oslo\"}" })),
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }] }),
        json!({ "choices": [], "usage": usage }),
    ])
}

/// The answer of one that says how it is.
fn saying(stream: bool) -> Behaviour {
    let usage = json!({ "prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26 });
    if !stream {
        return whole_of(json!({ "role": "assistant", "content": "It rains in Oslo." }), "stop", usage);
    }
    stream_of(&[
        json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "It rains " } }] }),
        json!({ "choices": [{ "index": 0, "delta": { "content": "in Oslo." }, "finish_reason": "stop" }] }),
        json!({ "choices": [], "usage": usage }),
    ])
}

fn whole_of(message: Value, reason: &str, usage: Value) -> Behaviour {
    let choice = json!({ "index": 0, "message": message, "finish_reason": reason });
    let answer = json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage });
    raw("application/json", answer.to_string())
}

fn stream_of(chunks: &[Value]) -> Behaviour {
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    raw("text/event-stream", events + "data: [DONE]\n\n")
}

fn raw(content_type: &'static str, body: String) -> Behaviour {
    Behaviour::Raw { content_type, pieces: vec![body.into()], gap: Duration::ZERO, end: End::Done }
}

#[tokio::test]
async fn the_packages_call_tools_and_read_thoughts() {
    let server = TestServer::start().await;
    let one_talk = [calling(false), saying(false), calling(true)];
    let agent = [calling(false), saying(false), calling(true), saying(true)];
    let chains = [calling(false), calling(false)];
    for behaviour in one_talk.iter().chain(&agent).chain(&one_talk).chain(&chains) {
        server.sim.queue(behaviour.clone());
    }
    let python = told_by(&server, prepared("BATCHIN_TEST_PYTHON"), "retold_tools_python.py").await;
    let (thought, call, said) = ("Which city?", json!(["weather", { "city": "Oslo" }]), "It rains in Oslo.");
    let talk = json!([thought, thought, call, call, said]);
    let agents = json!([said, said, ["Oslo", "Oslo"]]);
    assert_eq!(python, json!([talk, agents, talk, [{ "city": "Oslo" }, { "city": "Oslo" }]]));
    for behaviour in [calling(true), calling(true), calling(false), saying(false), calling(true), saying(true)] {
        server.sim.queue(behaviour);
    }
    let node = told_by(&server, "node".into(), "retold_tools_node.mjs").await;
    assert_eq!(node, json!([call, call, [said, said, ["Oslo", "Oslo"]]]));
    // What a model thought goes back to it.
    let sent: Vec<Value> =
        server.sim.requests().iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    let with_result =
        sent.iter().filter(|body| body["messages"].as_array().unwrap().iter().any(|one| one["role"] == "tool"));
    let thoughts =
        with_result.map(|body| body["messages"].as_array().unwrap().iter().find(|one| one["role"] == "assistant"));
    for message in thoughts {
        let message = message.unwrap();
        assert_eq!(
            message["tool_calls"][0]["function"]["arguments"].as_str().map(|text| text.replace(' ', "")),
            Some(r#"{"city":"Oslo"}"#.to_owned())
        );
    }
    server.stop().await;
}
