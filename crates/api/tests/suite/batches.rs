//! Holds: batches from their submission to their results.

use std::time::Duration;

use batchin_testkit::{
    Backend, TestServer, both,
    sim::{Behaviour, Refusal},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

fn chat(custom_id: &str, tokens: u32) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    json!({ "custom_id": custom_id, "model": "chat-model", "request_body": { "messages": messages, "max_tokens": tokens } })
}

pub(crate) async fn until_final(server: &TestServer, id: &str) -> Value {
    let ended = async {
        loop {
            let batch = server.get(&format!("/v1/batches/{id}")).await.ok();
            if batch["finished_at"] != Value::Null {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the batch ends")
}

both! {
    async fn a_batch_of_mixed_tasks_runs_and_is_billed(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let embed = json!({ "custom_id": "e", "model": "embed-model", "request_body": { "input": "hello" } });
        let tasks = json!([chat("a", 3), embed, chat("b", 4)]);
        let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "low" })).await.ok();
        for (field, value) in [
            ("status", json!("pending")), ("priority", json!("low")), ("total_tasks", json!(3)),
            ("completed_tasks", json!(0)), ("failed_tasks", json!(0)), ("blocked", Value::Null),
        ] {
            assert_eq!(made[field], value, "{field}");
        }
        let id = made["id"].as_str().unwrap();
        let batch = until_final(&server, id).await;
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(3)));
        assert_eq!(batch["next_after"], Value::Null);
        let tasks = batch["tasks"].as_array().unwrap();
        let ids: Vec<_> = tasks.iter().map(|task| task["custom_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a", "e", "b"]);
        assert_eq!(tasks[0]["result"]["usage"]["completion_tokens"], 3);
        assert_eq!((&tasks[2]["usage"]["completion_tokens"], &tasks[2]["status"]), (&json!(4), &json!("completed")));
        assert!(tasks[1]["result"]["data"][0]["embedding"].is_array());

        let results = server.get(&format!("/v1/batches/{id}/results")).await;
        assert_eq!(results.header("content-type"), "application/x-ndjson");
        let mut lines: Vec<Value> = results.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3], "in the order in which they ended");
        lines.sort_by_key(|line| line["index"].as_u64());
        assert_eq!(lines, *tasks);
        let rest = server.get(&format!("/v1/batches/{id}/results?after=2")).await;
        assert_eq!(rest.text().lines().count(), 1);
        let by_name = server.get(&format!("/v1/batches/batch_{}", id.replace('-', ""))).await.ok();
        assert_eq!(by_name["id"], *id, "OpenAI's form of the id does as well");
        let page = server.get(&format!("/v1/batches/{id}?limit=1&after=0")).await.ok();
        assert_eq!((&page["tasks"][0]["custom_id"], &page["next_after"]), (&json!("e"), &json!(1)));
        let counts = server.get(&format!("/v1/batches/{id}?limit=0")).await.ok();
        assert_eq!((&counts["tasks"], &counts["next_after"]), (&json!([]), &Value::Null));

        let logs = server.get("/v1/usage/logs").await.ok();
        assert_eq!(logs.as_array().unwrap().len(), 3);
        assert_eq!((&logs[0]["batch_id"], &logs[0]["class"]), (&json!(id), &json!("low")));
        let listed = server.get("/v1/batches").await.ok();
        assert_eq!(listed.as_array().unwrap().len(), 1);
        assert_eq!(listed[0]["status"], "completed");
        server.stop().await;
    }

    async fn an_estimate_says_what_a_batch_costs_at_most_and_stores_nothing(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let embed = json!({ "custom_id": "c", "model": "embed-model", "request_body": { "input": "c" } });
        let tasks = json!([chat("a", 3), chat("b", 5), embed]);
        let body = json!({ "priority": "low", "tasks": tasks });
        let estimate = server.post("/v1/batches/estimate", body.clone()).await.ok();
        assert_eq!((&estimate["total_tasks"], estimate["by_model"].as_array().unwrap().len()), (&json!(3), 2));
        let (most, expected) = (estimate["max_cost_cents"].as_f64(), estimate["expected_cost_cents"].as_f64());
        assert!(expected > Some(0.0) && expected <= most, "{estimate}");
        assert_eq!(server.get("/v1/batches").await.ok(), json!([]));
        let made = server.post("/v1/batches", body).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert!(batch["cost_cents"].as_f64() > Some(0.0) && batch["cost_cents"].as_f64() <= most, "{batch}");

        let wrong = server.post("/v1/batches/estimate", json!({ "tasks": [] })).await;
        assert_eq!(wrong.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "tasks");
        let file = json!({ "input_file_id": "file-0197f3a0000070008000000000000000" });
        server.post("/v1/batches/estimate", file).await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn tasks_are_streamed_from_the_model_server_and_stored_whole(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let mut scored = chat("b", 3);
        scored["request_body"]["prompt_logprobs"] = json!(1);
        let made = server.post("/v1/batches", json!({ "tasks": [chat("a", 3), scored] })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(2)));
        let mut streamed: Vec<Value> = server.sim.requests().iter()
            .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap()["stream"].clone())
            .collect();
        streamed.sort_by_key(ToString::to_string);
        assert_eq!(streamed, [json!(null), json!(true)], "prompt logprobs are not to be had from a stream");
        for task in batch["tasks"].as_array().unwrap() {
            let result = &task["result"];
            assert_eq!((&result["object"], &result["usage"]["completion_tokens"]), (&json!("chat.completion"), &json!(3)));
            assert_eq!(result["choices"][0]["message"]["content"], "Lorem ipsum dolor ");
            assert_eq!(result["choices"][0]["finish_reason"], "length");
        }
        server.stop().await;
    }

    async fn a_failed_task_shows_its_error(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(Behaviour::Refuse(Refusal::vllm(400, "prompt too long")));
        let made = server.post("/v1/batches", json!({ "tasks": [chat("a", 3)] })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!((&batch["status"], &batch["failed_tasks"]), (&json!("failed"), &json!(1)));
        let task = &batch["tasks"][0];
        assert_eq!((&task["status"], &task["error"]["message"]), (&json!("failed"), &json!("prompt too long")));
        assert_eq!(task.get("result"), Some(&Value::Null));
        assert_eq!(server.balance().await.nanos(), batchin_testkit::usd("1").nanos());
        server.stop().await;
    }

    async fn a_batch_is_cancelled_once(backend) {
        let server = TestServer::start().on(backend).await;
        let made = server.post("/v1/batches", json!({ "tasks": [chat("a", 3), chat("b", 3)] })).await.ok();
        let cancel = format!("/v1/batches/{}/cancel", made["id"].as_str().unwrap());
        let cancelled = server.call(Method::POST, &cancel).await.ok();
        assert_eq!(cancelled, json!({ "id": made["id"], "status": "cancelled", "stopped_tasks": 2 }));
        let again = server.call(Method::POST, &cancel).await.ok();
        assert_eq!((&again["status"], &again["stopped_tasks"]), (&json!("cancelled"), &json!(0)));
        server.call(Method::POST, "/v1/batches/0197f3a0-0000-7000-8000-000000000000/cancel").await
            .error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn every_fault_is_named_before_anything_is_stored(backend) {
        let server = TestServer::start().on(backend).await;
        let twice = json!({ "tasks": [chat("a", 1), chat("a", 1), { "custom_id": "c", "model": "none", "request_body": { "input": "x" } }] });
        let reply = server.post("/v1/batches", twice).await;
        let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "tasks[1].custom_id");
        assert!(error["message"].as_str().unwrap().contains("tasks[2].model"), "{error}");
        for body in [json!({}), json!({ "tasks": [] }), json!({ "tasks": "x" }), json!({ "tasks": [chat("a", 1)], "priority": "top" })] {
            server.post("/v1/batches", body.clone()).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        }
        let broken = server.call(Method::POST, "/v1/batches").body("{\"tasks\": [}").await;
        let error = broken.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert!(error["message"].as_str().unwrap().contains("line 1"), "{error}");
        assert_eq!(server.get("/v1/batches").await.ok(), json!([]));
        server.stop().await;
    }

    async fn two_million_bytes_fit_and_one_more_does_not(backend) {
        let server = TestServer::start().on(backend).await;
        let body = json!({ "tasks": [chat("a", 1)] }).to_string();
        let padded = |size: usize| format!("{body}{}", " ".repeat(size - body.len()));
        server.call(Method::POST, "/v1/batches").body(padded(2_000_000)).await.ok();
        let over = server.call(Method::POST, "/v1/batches").body(padded(2_000_001)).await;
        over.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        assert_eq!(server.get("/v1/batches").await.ok().as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn the_same_request_makes_one_batch(backend) {
        let server = TestServer::start().on(backend).await;
        let make = |tokens| server.post("/v1/batches", json!({ "tasks": [chat("a", tokens)] })).header("idempotency-key", "k1");
        let replies = futures::future::join_all((0..4).map(|_| make(1).send())).await;
        for reply in &replies {
            assert_eq!((reply.status, &reply.body), (200, &replies[0].body), "{}", reply.text());
        }
        assert_eq!(replies.iter().filter(|reply| reply.header("idempotent-replayed") == "true").count(), 3);
        make(2).await.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(server.get("/v1/batches").await.ok().as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn a_batch_that_cannot_be_paid_for_waits_and_says_so(backend) {
        let server = TestServer::start().on(backend).with_worker().with_balance("0").await;
        let made = server.post("/v1/batches", json!({ "tasks": [chat("a", 3)] })).await.ok();
        let path = format!("/v1/batches/{}", made["id"].as_str().unwrap());
        let blocked = async {
            while server.get(&path).await.ok()["blocked"] == Value::Null {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), blocked).await.expect("it says that it waits");
        server.grant(&server.owner, batchin_testkit::usd("1")).await;
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!(batch["status"], "completed");
        server.stop().await;
    }
}

/// The longest time in which nothing else ran on this thread, until told to stop.
async fn longest_stand(stop: oneshot::Receiver<()>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    tokio::pin!(stop);
    while futures::poll!(&mut stop).is_pending() {
        tokio::task::yield_now().await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// One thread serves everybody here: what stands on it keeps everybody waiting.
#[tokio::test(flavor = "current_thread")]
async fn a_long_batch_is_read_beside_the_others() {
    let server = TestServer::start().await;
    let tasks: Vec<Value> = (0..5_000).map(|index| chat(&index.to_string(), 3)).collect();
    let call = server.post("/v1/batches/estimate", json!({ "tasks": tasks }));
    let (tell, stop) = oneshot::channel();
    let mut standing = JoinSet::new();
    standing.spawn(longest_stand(stop));
    let began = Instant::now();
    let estimate = call.await.ok();
    let all = began.elapsed();
    tell.send(()).unwrap();
    let longest = standing.join_next().await.unwrap().unwrap();
    assert_eq!(estimate["total_tasks"], 5_000);
    assert!(longest < all / 2, "nothing else ran for {longest:?} of {all:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_call_of_an_unknown_kind_fails_and_is_not_made_as_another() {
    let server = TestServer::start().on(Backend::Postgres).with_worker().await;
    // As if a later version had written it.
    server.database.run(
        "CREATE FUNCTION later() RETURNS trigger AS $$ BEGIN NEW.endpoint := 32767; RETURN NEW; END $$ LANGUAGE plpgsql",
    );
    server.database.run("CREATE TRIGGER later BEFORE INSERT ON task FOR EACH ROW EXECUTE FUNCTION later()");
    let made = server.post("/v1/batches", json!({ "tasks": [chat("a", 3)] })).await.ok();
    let batch = until_final(&server, made["id"].as_str().unwrap()).await;
    let error = &batch["tasks"][0]["error"];
    assert_eq!(error["message"], "The kind of call that the task asks for is not known here.", "{batch}");
    assert_eq!(server.sim.calls(), 0);
    server.stop().await;
}
