//! Holds: batches in OpenAI's shapes: their whole life, every end, every fault, and both flavours of one batch.

use std::{collections::BTreeSet, time::Duration};

use batchin_batch::{Batches, Worker, WorkerOptions};
use batchin_testkit::{
    Account, Call, TestServer, both,
    sim::{Answer, Behaviour, Refusal},
    usd, worker_parts,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const BATCHES: &str = "/openai/v1/batches";
const FILES: &str = "/openai/v1/files";
const CHAT: &str = "/v1/chat/completions";
const NOBODYS: &str = "batch_0197f3a0000070008000000000000000";

/// One request of a file.
fn chat(custom_id: &str, tokens: u32) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let body = json!({ "model": "chat-model", "messages": messages, "max_tokens": tokens });
    json!({ "custom_id": custom_id, "method": "POST", "url": CHAT, "body": body })
}

fn embedding(custom_id: &str) -> Value {
    let body = json!({ "model": "embed-model", "input": "hello" });
    json!({ "custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body })
}

/// `line`, changed.
fn with(mut line: Value, pointer: &str, value: Value) -> Value {
    *line.pointer_mut(pointer).unwrap() = value;
    line
}

fn without(mut line: Value, name: &str) -> Value {
    line.as_object_mut().unwrap().remove(name).unwrap();
    line
}

fn text_of(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

async fn upload(server: &TestServer, purpose: &str, content: &str) -> String {
    let body = format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--b\r\ncontent-disposition: \
         form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    let call = server.call(Method::POST, FILES).header("content-type", "multipart/form-data; boundary=b").body(body);
    call.await.ok()["id"].as_str().unwrap().to_owned()
}

/// What a client sends for a file of chats.
fn order(file: &str) -> Value {
    json!({ "input_file_id": file, "endpoint": CHAT, "completion_window": "24h" })
}

/// A batch of these lines, as it is when it has been made.
async fn submit(server: &TestServer, lines: &[Value], change: impl FnOnce(&mut Value)) -> Value {
    let mut order = order(&upload(server, "batch", &text_of(lines)).await);
    change(&mut order);
    server.post(BATCHES, order).await.ok()
}

fn path_of(batch: &Value) -> String {
    format!("{BATCHES}/{}", batch["id"].as_str().unwrap())
}

/// Its path in our own flavour.
fn own_path_of(batch: &Value) -> String {
    format!("/v1/batches/{}", batch["id"].as_str().unwrap().strip_prefix("batch_").unwrap())
}

/// The batch once it is as it should be.
async fn until(server: &TestServer, batch: &Value, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let path = path_of(batch);
    let mut last = Value::Null;
    let looking = async {
        loop {
            last = server.get(&path).await.ok();
            if is(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(40), looking).await;
    assert!(found.is_ok(), "{what}: {last}");
    last
}

async fn until_status(server: &TestServer, batch: &Value, status: &str) -> Value {
    until(server, batch, status, |batch| batch["status"] == status).await
}

async fn completes_one(server: &TestServer, batch: &Value) {
    until(server, batch, "one is completed", |batch| batch["request_counts"]["completed"] == 1).await;
}

/// The lines of a file that the batch names; none when it names none.
async fn lines_of(server: &TestServer, file: &Value) -> Vec<Value> {
    let Some(file) = file.as_str() else { return Vec::new() };
    let content = server.get(&format!("{FILES}/{file}/content")).await;
    assert_eq!(content.status, 200, "{}", content.text());
    content.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect()
}

/// Output and error lines of a batch that has ended: each request stands in one of them, once.
async fn conserved(server: &TestServer, batch: &Value, sent: &[Value]) -> (Vec<Value>, Vec<Value>) {
    let (good, bad) =
        (lines_of(server, &batch["output_file_id"]).await, lines_of(server, &batch["error_file_id"]).await);
    let counts = &batch["request_counts"];
    let sizes = json!({ "total": sent.len(), "completed": good.len(), "failed": bad.len() });
    assert_eq!(*counts, sizes, "{batch}");
    let (mut seen, mut all) = ([ids(&good), ids(&bad)].concat(), ids(sent));
    seen.sort_unstable();
    all.sort_unstable();
    assert_eq!(seen, all);
    for line in good.iter().chain(&bad) {
        assert!(line["id"].as_str().unwrap().starts_with("batch_req_"), "{line}");
        let members: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, BTreeSet::from(["id", "custom_id", "response", "error"]), "{line}");
    }
    for line in &good {
        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(200), &Value::Null), "{line}");
        assert!(line["response"]["request_id"].is_string(), "{line}");
    }
    (good, bad)
}

/// Which of the times are there.
fn times(batch: &Value) -> Vec<&str> {
    let named =
        ["in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"];
    named.into_iter().filter(|name| !batch[name].is_null()).collect()
}

fn stranger(server: &TestServer, account: &Account, method: Method, path: &str) -> Call {
    server.anonymous(method, path).key(&account.key)
}

both! {
    async fn a_batch_begins_in_exactly_openais_shape(backend) {
        // Nobody works here, so it stays as it began.
        let server = TestServer::start().on(backend).await;
        let file = upload(&server, "batch", &text_of(&[chat("a", 3)])).await;
        let mut asked = order(&file);
        asked["metadata"] = json!({ "team": "a" });
        asked["output_expires_after"] = json!({ "anchor": "created_at", "seconds": 3_600 });
        let mut made = server.post(BATCHES, asked).await.ok();
        let (id, created) = (made["id"].as_str().unwrap().to_owned(), made["created_at"].as_i64().unwrap());
        assert!(id.len() == 38 && id.starts_with("batch_"), "{id}");
        assert_eq!(server.get(&format!("{BATCHES}/{id}")).await.ok(), made);
        assert_eq!(made["cost_cents"].take().as_f64(), Some(0.0));
        assert_eq!(made, json!({
            "id": id, "object": "batch", "endpoint": CHAT, "model": null, "errors": null,
            "input_file_id": file, "completion_window": "24h", "status": "validating",
            "output_file_id": null, "error_file_id": null,
            "created_at": created, "in_progress_at": null, "expires_at": created + 86_400, "finalizing_at": null,
            "completed_at": null, "failed_at": null, "expired_at": null, "cancelling_at": null, "cancelled_at": null,
            "request_counts": { "total": 0, "completed": 0, "failed": 0 },
            "usage": {
                "input_tokens": 0, "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": 0, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 0,
            },
            "metadata": { "team": "a" },
            "priority": "low", "blocked": null, "max_cost_cents": null, "cost_cents": null,
        }));
        let bare = id.strip_prefix("batch_").unwrap();
        assert_eq!(server.get(&format!("{BATCHES}/{bare}")).await.ok()["id"], id, "the UUID names it too");
        server.stop().await;
    }

    async fn a_batch_lives_from_its_file_to_its_results(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.queue(Behaviour::Refuse(Refusal::vllm(400, "prompt too long")));
        let sent = [chat("a", 3), chat("b", 3), chat("c", 3)];
        let made = submit(&server, &sent, |order| order["metadata"] = json!({ "team": "a" })).await;
        assert!(["validating", "in_progress"].contains(&made["status"].as_str().unwrap()), "{made}");
        let batch = until_status(&server, &made, "completed").await;
        assert_eq!(times(&batch), ["in_progress_at", "finalizing_at", "completed_at"]);
        assert_eq!((&batch["model"], &batch["errors"]), (&json!("chat-model"), &Value::Null));
        assert_eq!(batch["metadata"], json!({ "team": "a" }));
        let (good, bad) = conserved(&server, &batch, &sent).await;
        assert_eq!((good.len(), bad.len()), (2, 1));
        for line in &good {
            assert_eq!(line["response"]["body"]["object"], "chat.completion");
            assert_eq!(line["response"]["body"]["usage"]["completion_tokens"], 3);
        }
        let refused = &bad[0];
        assert_eq!((&refused["response"]["status_code"], &refused["error"]), (&json!(400), &Value::Null));
        assert_eq!(refused["response"]["body"]["error"]["message"], "prompt too long");
        let usage = &batch["usage"];
        let input: u64 =
            good.iter().map(|line| line["response"]["body"]["usage"]["prompt_tokens"].as_u64().unwrap()).sum();
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(input), &json!(6)));
        assert_eq!(usage["total_tokens"], input + 6);

        let output = server.get(&format!("{FILES}/{}", batch["output_file_id"].as_str().unwrap())).await.ok();
        assert_eq!((&output["purpose"], &output["status"]), (&json!("batch_output"), &json!("processed")));
        let logs = server.get("/v1/usage/logs").await.ok();
        let logs = logs.as_array().unwrap();
        let charged = |row: &&Value| row["cost_cents"].as_f64().unwrap() > 0.0;
        let cost: f64 = logs.iter().map(|row| row["cost_cents"].as_f64().unwrap()).sum();
        assert_eq!(logs.iter().filter(charged).count(), 2, "what completed is charged, once");
        assert!((batch["cost_cents"].as_f64().unwrap() - cost).abs() < 1e-9, "{batch}");
        // Half of what these tokens cost at once.
        assert!((cost - (input as f64 * 0.01 + 6.0 * 0.04) / 1e4).abs() < 1e-6, "{cost}");
        server.stop().await;
    }

    async fn every_fault_of_a_file_is_told_with_its_line(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let lines = [
            chat("a", 1).to_string(),
            "{\"custom_id\": ".to_owned(),
            without(chat("c", 1), "custom_id").to_string(),
            String::new(),
            chat("a", 1).to_string(),
            with(chat("f", 1), "/body/model", json!("none")).to_string(),
            with(chat("g", 1), "/url", json!("/v1/images/variations")).to_string(),
            embedding("h").to_string(),
            with(chat("i", 1), "/body/max_tokens", json!(-1)).to_string(),
            with(chat("j", 1), "/method", json!("GET")).to_string(),
            with(chat("k", 1), "/body", json!([])).to_string(),
            chat("l", 1).to_string().replace("\"max_tokens\":1", "\"stream\":true"),
        ];
        let file = upload(&server, "batch", &lines.join("\n")).await;
        let made = server.post(BATCHES, order(&file)).await.ok();
        let batch = until_status(&server, &made, "failed").await;
        assert_eq!(times(&batch), ["failed_at"]);
        assert_eq!(batch["request_counts"], json!({ "total": 0, "completed": 0, "failed": 0 }));
        assert_eq!(batch["errors"]["object"], "list");
        let faults = batch["errors"]["data"].as_array().unwrap();
        let found: Vec<_> = faults.iter().map(|fault| (&fault["line"], &fault["code"], &fault["param"])).collect();
        let expected = json!([
            [2, "invalid_json_line", null],
            [3, "missing_required_parameter", "custom_id"],
            [5, "duplicate_custom_id", "custom_id"],
            [6, "model_not_found", "body.model"],
            [7, "invalid_url", "url"],
            [8, "mismatched_endpoint", "url"],
            [9, "invalid_request", "body.max_tokens"],
            [10, "invalid_method", "method"],
            [11, "invalid_type", "body"],
            [12, "invalid_request", "body.stream"],
        ]);
        assert_eq!(json!(found), expected, "{batch}");
        assert!(faults.iter().all(|fault| !fault["message"].as_str().unwrap().is_empty()));
        assert_eq!(server.get(&own_path_of(&batch)).await.ok()["status"], "failed");

        let many = "{}\n".repeat(150);
        let many = server.post(BATCHES, order(&upload(&server, "batch", &many).await)).await.ok();
        let many = until_status(&server, &many, "failed").await;
        assert_eq!(many["errors"]["data"].as_array().unwrap().len(), 100);
        let blank = server.post(BATCHES, order(&upload(&server, "batch", "\n \n").await)).await.ok();
        let blank = until_status(&server, &blank, "failed").await;
        assert_eq!((&blank["errors"]["data"][0]["code"], &blank["errors"]["data"][0]["line"]), (&json!("empty_file"), &Value::Null));
        assert_eq!(server.sim.calls(), 0, "nothing of them runs");
        assert_eq!(server.get("/v1/usage/logs").await.ok(), json!([]));
        server.stop().await;
    }

    async fn what_is_wrong_with_the_body_is_named(backend) {
        let server = TestServer::start().on(backend).await;
        let file = upload(&server, "batch", &text_of(&[chat("a", 1)])).await;
        for (param, change) in [
            ("endpoint", json!({ "endpoint": "/v1/images/variations" })),
            ("endpoint", json!({ "endpoint": 1 })),
            ("completion_window", json!({ "completion_window": "30m" })),
            ("completion_window", json!({ "completion_window": "8d" })),
            ("completion_window", json!({ "completion_window": null })),
            ("input_file_id", json!({ "input_file_id": null })),
            ("input_file_id", json!({ "input_file_id": 7 })),
            ("metadata", json!({ "metadata": { "a": 1 } })),
            ("metadata", json!({ "metadata": { "a": "x".repeat(513) } })),
            ("output_expires_after", json!({ "output_expires_after": 3_600 })),
            ("output_expires_after.anchor", json!({ "output_expires_after": { "anchor": "now", "seconds": 3_600 } })),
            ("output_expires_after.seconds", json!({ "output_expires_after": { "anchor": "created_at", "seconds": 3_599 } })),
            ("output_expires_after.seconds", json!({ "output_expires_after": { "anchor": "created_at", "seconds": 2_592_001 } })),
            ("priority", json!({ "priority": "top" })),
            ("webhook_url", json!({ "webhook_url": "gopher://x" })),
            ("max_cost_cents", json!({ "max_cost_cents": -1 })),
            ("completion_windw", json!({ "completion_windw": "24h" })),
        ] {
            let mut body = order(&file);
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = server.post(BATCHES, body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param, "{error}");
        }
        let near = server.post(BATCHES, json!({ "completion_windw": "24h" })).await.json();
        assert!(near["error"]["message"].as_str().unwrap().contains("`completion_window`"), "{near}");
        let error = server.post(BATCHES, json!({ "priority": "top" })).await.json()["error"].take();
        assert_eq!(error["param"], "input_file_id", "{error}");
        for other in ["completion_window: is missing", "priority: must be"] {
            assert!(error["message"].as_str().unwrap().contains(other), "{error}");
        }
        for body in ["", "[]", "{\"input_file_id\": "] {
            server.call(Method::POST, BATCHES).body(body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        }
        for (param, query) in [("limit", "limit=0"), ("limit", "limit=101"), ("after", "after=x"), ("befor", "befor=x")] {
            let error = server.get(&format!("{BATCHES}?{query}")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param, "{error}");
        }
        let large = format!("{}{}", order(&file), " ".repeat(300_000));
        server.call(Method::POST, BATCHES).body(large).await.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        assert_eq!(server.get(BATCHES).await.ok()["data"], json!([]));
        server.stop().await;
    }

    async fn a_file_that_is_no_input_makes_no_batch(backend) {
        let server = TestServer::start().on(backend).await;
        let content = text_of(&[chat("a", 1)]);
        let other = upload(&server, "user_data", &content).await;
        let error = server.post(BATCHES, order(&other)).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "input_file_id");
        let (deleted, expired) = (upload(&server, "batch", &content).await, upload(&server, "batch", &content).await);
        server.call(Method::DELETE, &format!("{FILES}/{deleted}")).await.ok();
        server.clock.advance(Duration::from_secs(2_592_001));
        for file in [deleted.as_str(), expired.as_str(), "file-0197f3a0000070008000000000000000", "nothing", ""] {
            let error = server.post(BATCHES, order(file)).await.error(StatusCode::NOT_FOUND, "not_found");
            assert_eq!(error["param"], "input_file_id", "{file}");
        }
        server.stop().await;
    }

    async fn nobody_else_has_a_batch_or_its_file(backend) {
        let server = TestServer::start().on(backend).await;
        let other = server.account("eve@example.com").await;
        let made = submit(&server, &[chat("a", 1)], |_| {}).await;
        let (path, cancel) = (path_of(&made), format!("{}/cancel", path_of(&made)));
        for (method, path) in
            [(Method::POST, BATCHES), (Method::GET, BATCHES), (Method::GET, path.as_str()), (Method::POST, cancel.as_str())]
        {
            server.anonymous(method, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        stranger(&server, &other, Method::GET, &path).await.error(StatusCode::NOT_FOUND, "not_found");
        stranger(&server, &other, Method::POST, &cancel).await.error(StatusCode::NOT_FOUND, "not_found");
        let none = json!({ "object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false });
        assert_eq!(stranger(&server, &other, Method::GET, BATCHES).await.ok(), none);
        let after = format!("{BATCHES}?after={}", made["id"].as_str().unwrap());
        assert_eq!(stranger(&server, &other, Method::GET, &after).await.ok(), none);
        let theirs = stranger(&server, &other, Method::POST, BATCHES).json(order(made["input_file_id"].as_str().unwrap())).await;
        assert_eq!(theirs.error(StatusCode::NOT_FOUND, "not_found")["param"], "input_file_id");
        for wrong in [NOBODYS, "batch_x", "nothing"] {
            server.get(&format!("{BATCHES}/{wrong}")).await.error(StatusCode::NOT_FOUND, "not_found");
            let cancel = server.call(Method::POST, &format!("{BATCHES}/{wrong}/cancel")).await;
            cancel.error(StatusCode::NOT_FOUND, "not_found");
        }
        assert_eq!(server.get(&path).await.ok()["status"], "validating", "and nobody has stopped it");
        server.stop().await;
    }

    async fn lists_follow_their_cursors(backend) {
        let server = TestServer::start().on(backend).await;
        let file = upload(&server, "batch", &text_of(&[chat("a", 1)])).await;
        let mut made = Vec::new();
        for _ in 0..5 {
            made.insert(0, server.post(BATCHES, order(&file)).await.ok()["id"].clone());
        }
        let page = async |query: String| {
            let list = server.get(&format!("{BATCHES}?{query}")).await.ok();
            let ids: Vec<Value> = list["data"].as_array().unwrap().iter().map(|batch| batch["id"].clone()).collect();
            assert_eq!((&list["first_id"], &list["last_id"]), (&ids[0], ids.last().unwrap()));
            (ids, list["has_more"].as_bool().unwrap())
        };
        assert_eq!(page(String::new()).await, (made.clone(), false));
        assert_eq!(page("limit=2".to_owned()).await, (made[..2].to_vec(), true));
        let after = |at: usize| made[at].as_str().unwrap();
        assert_eq!(page(format!("limit=2&after={}", after(1))).await, (made[2..4].to_vec(), true));
        assert_eq!(page(format!("limit=2&after={}", after(3))).await, (made[4..].to_vec(), false));
        server.stop().await;
    }

    async fn the_same_request_makes_one_batch(backend) {
        let server = TestServer::start().on(backend).await;
        let file = upload(&server, "batch", &text_of(&[chat("a", 1)])).await;
        let send = |body: Value| server.post(BATCHES, body).header("idempotency-key", "one");
        let first = send(order(&file)).await.ok();
        let again = send(order(&file)).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.ok(), first);
        let mut other = order(&file);
        other["priority"] = json!("high");
        send(other).await.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(server.get(BATCHES).await.ok()["data"].as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn a_cancelled_batch_keeps_what_it_has_and_tells_of_the_rest(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.queue(Behaviour::Answer(Answer::of(3)));
        server.sim.script_all(Behaviour::Hang);
        let sent: Vec<Value> = (0..6).map(|index| chat(&format!("t{index}"), 3)).collect();
        let made = submit(&server, &sent, |_| {}).await;
        completes_one(&server, &made).await;
        let input = format!("{FILES}/{}", made["input_file_id"].as_str().unwrap());
        let used = server.call(Method::DELETE, &input).await;
        used.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(used.header("x-should-retry"), "false");

        let cancel = format!("{}/cancel", path_of(&made));
        let told = server.call(Method::POST, &cancel).await.ok();
        assert!(["cancelling", "cancelled"].contains(&told["status"].as_str().unwrap()), "{told}");
        assert!(!told["cancelling_at"].is_null(), "{told}");
        let batch = until_status(&server, &made, "cancelled").await;
        assert_eq!(times(&batch), ["in_progress_at", "cancelling_at", "cancelled_at"]);
        let (good, bad) = conserved(&server, &batch, &sent).await;
        assert_eq!(good.len(), 1, "what had completed stays");
        for line in &bad {
            assert_eq!((&line["error"]["code"], &line["response"]), (&json!("batch_cancelled"), &Value::Null), "{line}");
        }
        assert_eq!(server.call(Method::POST, &cancel).await.ok(), batch, "it stays as it ended");
        server.call(Method::DELETE, &input).await.ok();
        assert_eq!(server.get(&path_of(&made)).await.ok(), batch);
        server.stop().await;
    }

    async fn a_batch_is_cancelling_until_its_files_are_there(backend) {
        // Nobody puts files together here.
        let server = TestServer::start().on(backend).await;
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": { "messages": messages } });
        let made = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        let path = format!("{BATCHES}/{}", made["id"].as_str().unwrap());
        let seen = server.get(&path).await.ok();
        for (member, value) in [
            ("status", json!("in_progress")), ("endpoint", json!("mixed")), ("completion_window", json!("none")),
            ("expires_at", Value::Null), ("priority", json!("high")), ("metadata", Value::Null),
            ("request_counts", json!({ "total": 1, "completed": 0, "failed": 0 })),
        ] {
            assert_eq!(seen[member], value, "{member}");
        }
        assert!(seen["input_file_id"].as_str().unwrap().starts_with("file-"), "its tasks are a file too");
        assert_eq!(times(&seen), ["in_progress_at"]);
        let told = server.call(Method::POST, &format!("{path}/cancel")).await.ok();
        assert_eq!((&told["status"], &told["request_counts"]["failed"]), (&json!("cancelling"), &json!(1)));
        let read = submit(&server, &[chat("a", 1)], |_| {}).await;
        let told = server.call(Method::POST, &format!("{}/cancel", path_of(&read))).await.ok();
        assert_eq!(told["status"], "cancelling", "every line of it is still to be told of");
        server.stop().await;
    }

    async fn each_line_is_written_once_though_it_was_cancelled_unread(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let sent: Vec<Value> = (0..6).map(|index| chat(&format!("t{index}"), 3)).collect();
        // Cancelled before any node looks at it, and expired likewise.
        let made = submit(&server, &sent, |_| {}).await;
        server.call(Method::POST, &format!("{}/cancel", path_of(&made))).await.ok();
        let batch = until_status(&server, &made, "cancelled").await;
        let (good, bad) = conserved(&server, &batch, &sent).await;
        assert_eq!(good.len() + bad.len(), sent.len());
        assert!(bad.iter().all(|line| line["error"]["code"] == "batch_cancelled"), "{bad:?}");
        let own = server.get(&own_path_of(&batch)).await.ok();
        assert_eq!(own["ended_early"], "cancelled");
        let results = server.get(&format!("{}/results", own_path_of(&batch))).await.text();
        for line in results.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            assert!(line["status"] == "completed" || line["error"]["code"] == "batch_cancelled", "{line}");
        }
        server.stop().await;
    }

    async fn what_is_not_run_in_time_expires(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.queue(Behaviour::Answer(Answer::of(3)));
        server.sim.script_all(Behaviour::Hang);
        let sent: Vec<Value> = (0..6).map(|index| chat(&format!("t{index}"), 3)).collect();
        let made = submit(&server, &sent, |order| {
            order["completion_window"] = json!("1h");
            order["output_expires_after"] = json!({ "anchor": "created_at", "seconds": 7_200 });
        })
        .await;
        assert_eq!(made["expires_at"].as_i64().unwrap(), made["created_at"].as_i64().unwrap() + 3_600);
        completes_one(&server, &made).await;
        server.clock.advance(Duration::from_secs(3_600));
        let batch = until_status(&server, &made, "expired").await;
        assert_eq!(times(&batch), ["in_progress_at", "finalizing_at", "expired_at"]);
        let (good, bad) = conserved(&server, &batch, &sent).await;
        assert_eq!(good.len(), 1, "what had completed stays");
        for line in &bad {
            assert_eq!((&line["error"]["code"], &line["response"]), (&json!("batch_expired"), &Value::Null), "{line}");
        }
        for file in ["output_file_id", "error_file_id"] {
            let file = server.get(&format!("{FILES}/{}", batch[file].as_str().unwrap())).await.ok();
            assert_eq!(file["expires_at"].as_i64().unwrap(), file["created_at"].as_i64().unwrap() + 7_200);
        }
        assert_eq!(server.get(&own_path_of(&batch)).await.ok()["status"], "expired");
        server.stop().await;
    }

    async fn a_batch_stops_before_it_costs_more_than_it_may(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(Behaviour::Answer(Answer::of(200)));
        let sent: Vec<Value> = (0..6).map(|index| chat(&format!("t{index}"), 200)).collect();
        // 200 tokens cost 0.0008 cents and their prompt a little: two fit, and three do not.
        let made = submit(&server, &sent, |order| order["max_cost_cents"] = json!(0.002)).await;
        assert_eq!(made["max_cost_cents"], 0.002);
        let batch = until_status(&server, &made, "cancelled").await;
        assert_eq!(batch["request_counts"], json!({ "total": 6, "completed": 2, "failed": 4 }));
        assert!(batch["cost_cents"].as_f64().unwrap() <= 0.002, "{batch}");
        let told = batch["errors"]["data"].as_array().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0]["code"], &told[0]["param"]), (&json!("max_cost_reached"), &json!("max_cost_cents")));
        let (_, bad) = conserved(&server, &batch, &sent).await;
        assert!(bad.iter().all(|line| line["error"]["code"] == "batch_max_cost_reached"), "{bad:?}");
        let own = server.get(&own_path_of(&batch)).await.ok();
        assert_eq!(own["ended_early"], "max_cost_reached");
        let told = own["tasks"].as_array().unwrap().iter().filter(|task| task["error"]["code"] == "batch_max_cost_reached");
        assert_eq!(told.count(), 4, "{own}");
        let results = server.get(&format!("{}/results", own_path_of(&batch))).await.text();
        assert_eq!(results.matches("batch_max_cost_reached").count(), 4, "{results}");
        server.stop().await;
    }

    async fn lines_may_differ_where_no_endpoint_is_said(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let sent = [chat("a", 3), embedding("e")];
        let mixed = |order: &mut Value| *order = without(order.take(), "endpoint");
        let made = submit(&server, &sent, mixed).await;
        let batch = until_status(&server, &made, "completed").await;
        assert_eq!((&batch["endpoint"], &batch["model"]), (&json!("mixed"), &Value::Null));
        let (good, _) = conserved(&server, &batch, &sent).await;
        assert_eq!(good.len(), 2);
        server.stop().await;
    }

    async fn a_batch_without_a_result_is_completed_and_has_no_output(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(Behaviour::Refuse(Refusal::vllm(400, "no")));
        let sent = [chat("a", 3)];
        let made = submit(&server, &sent, |_| {}).await;
        let batch = until_status(&server, &made, "completed").await;
        assert_eq!((&batch["output_file_id"], &batch["errors"]), (&Value::Null, &Value::Null));
        conserved(&server, &batch, &sent).await;
        // One that was made inline has failed, in our own flavour.
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": { "messages": messages } });
        let made = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        let named = json!({ "id": format!("batch_{}", made["id"].as_str().unwrap().replace('-', "")) });
        let batch = until_status(&server, &named, "completed").await;
        assert_eq!(times(&batch), ["in_progress_at", "finalizing_at", "completed_at"]);
        assert_eq!(server.get(&own_path_of(&named)).await.ok()["status"], "failed");
        server.stop().await;
    }

    async fn a_batch_that_waits_for_money_says_so_and_goes_on(backend) {
        let server = TestServer::start().on(backend).with_worker().with_balance("0").await;
        let sent = [chat("a", 3), chat("b", 3)];
        let made = submit(&server, &sent, |_| {}).await;
        let blocked = until(&server, &made, "it waits", |batch| !batch["blocked"].is_null()).await;
        assert_eq!((&blocked["blocked"], &blocked["status"]), (&json!("payment_required"), &json!("in_progress")));
        assert_eq!(server.get(&own_path_of(&made)).await.ok()["blocked"], "payment_required");
        server.grant(&server.owner, usd("1")).await;
        let batch = until_status(&server, &made, "completed").await;
        assert_eq!(batch["blocked"], Value::Null);
        let (good, _) = conserved(&server, &batch, &sent).await;
        assert_eq!(good.len(), 2);
        server.stop().await;
    }

    async fn a_batch_whose_tasks_are_paid_for_and_fail_waits_no_longer(backend) {
        let server = TestServer::start().on(backend).with_worker().with_balance("0").await;
        server.sim.script_all(Behaviour::Drop);
        let made = submit(&server, &[chat("a", 3), chat("b", 3)], |_| {}).await;
        until(&server, &made, "it waits", |batch| !batch["blocked"].is_null()).await;
        server.grant(&server.owner, usd("1")).await;
        let is_on = |batch: &Value| batch["blocked"].is_null();
        let batch = until(&server, &made, "it waits no longer", is_on).await;
        assert_eq!(batch["status"], "in_progress");
        server.stop().await;
    }

    async fn a_chore_that_was_taken_unheard_is_done(backend) {
        let server = TestServer::start().on(backend).await;
        let made = submit(&server, &[chat("a", 3)], |_| {}).await;
        // As if the answer to this had never come.
        let node = server.gateway.epoch().identity;
        let now = server.gateway.clock().now();
        server.store.chores().take_chore(node, None, now).await.unwrap().expect("a file to read");
        let tasks = batchin_tasks::Tasks::new();
        let handles = (server.store.openings(), server.store.endings());
        let batches = Batches::new(server.gateway.clone(), handles, server.blobs.clone(), server.files.clone());
        let options = WorkerOptions { concurrency: 4, max_attempts: 3, retention: Duration::from_secs(3_600) };
        let parts = worker_parts(&server.store, &server.gateway, (&server.blobs, &server.files));
        Worker::start(parts, &batches, options, &tasks);
        until_status(&server, &made, "completed").await;
        tasks.shutdown(Duration::from_secs(10)).await;
        server.stop().await;
    }

    async fn either_flavour_steers_the_batches_of_the_other(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(Behaviour::Hang);
        let made = submit(&server, &[chat("a", 3), chat("b", 3)], |_| {}).await;
        until(&server, &made, "its file is read", |batch| batch["request_counts"]["total"] == 2).await;
        let seen = server.get(&own_path_of(&made)).await.ok();
        assert_eq!((&seen["priority"], &seen["total_tasks"]), (&json!("low"), &json!(2)));
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let task = json!({ "custom_id": "i", "model": "chat-model", "request_body": { "messages": messages } });
        let inline = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        let name = format!("batch_{}", inline["id"].as_str().unwrap().replace('-', ""));
        let listed = server.get(BATCHES).await.ok();
        let listed: Vec<_> = listed["data"].as_array().unwrap().iter().map(|batch| &batch["id"]).collect();
        assert_eq!(listed, [&json!(name), &made["id"]]);
        assert_eq!(server.get("/v1/batches").await.ok().as_array().unwrap().len(), 2);

        server.call(Method::POST, &format!("{}/cancel", own_path_of(&made))).await.ok();
        let batch = until_status(&server, &made, "cancelled").await;
        assert_eq!(batch["request_counts"], json!({ "total": 2, "completed": 0, "failed": 2 }));
        server.call(Method::POST, &format!("{BATCHES}/{name}/cancel")).await.ok();
        until_status(&server, &json!({ "id": name }), "cancelled").await;
        let own = server.get(&format!("/v1/batches/{}", inline["id"].as_str().unwrap())).await.ok();
        assert_eq!((&own["status"], &own["cancelled_tasks"]), (&json!("cancelled"), &json!(1)));
        server.stop().await;
    }

    async fn a_client_of_openais_works_under_every_base_url(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let python = |call: batchin_testkit::Call| call.header("user-agent", "OpenAI/Python 3.54.0");
        let stranger = server.account("eve@example.com").await;
        for base in ["/v1", "", "/openai/v1"] {
            // A file has the same id, and the same shape, everywhere.
            let file = upload(&server, "batch", &text_of(&[chat("a", 3)])).await;
            let shown = server.get(&format!("{base}/files/{file}")).await.ok();
            assert_eq!(shown["object"], "file");
            let content = server.get(&format!("{base}/files/{file}/content")).await;
            assert_eq!(content.text(), text_of(&[chat("a", 3)]));
            assert!(server.get(&format!("{base}/files")).await.ok()["data"].is_array());
            // The body says that it is OpenAI's, whoever sends it.
            let path = format!("{base}/batches");
            let made = server.post(&path, order(&file)).await.ok();
            let id = made["id"].as_str().unwrap().to_owned();
            assert!(id.starts_with("batch_") && made["object"] == "batch", "{made}");
            let faulty = server.post(&path, json!({ "input_file_id": file, "completion_window": "1x" })).await;
            assert_eq!(faulty.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "completion_window");
            let strange = server.anonymous(Method::POST, &path).key(&stranger.key).json(order(&file)).await;
            strange.error(StatusCode::NOT_FOUND, "not_found");

            let ended = until(&server, &made, "completed", |batch| batch["status"] == "completed").await;
            let one = format!("{path}/{id}");
            assert_eq!(python(server.get(&one)).await.ok(), ended);
            assert_eq!(python(server.call(Method::POST, &format!("{one}/cancel"))).await.ok(), ended);
            let listed = python(server.get(&format!("{path}?limit=1"))).await.ok();
            assert_eq!((&listed["object"], &listed["data"][0]), (&json!("list"), &ended));
            let strange = python(server.anonymous(Method::GET, &one).key(&stranger.key)).await;
            strange.error(StatusCode::NOT_FOUND, "not_found");
            assert_eq!(python(server.anonymous(Method::GET, &path)).await.status, 401);
            if base != "/openai/v1" {
                // Everybody else meets what is documented, under either id.
                assert!(server.get(&path).await.ok().is_array());
                assert_eq!(server.get(&one).await.ok()["tasks"][0]["custom_id"], "a");
            }
        }
        server.stop().await;
    }
}
