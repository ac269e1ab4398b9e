//! Holds: what becomes of requests when model servers fail, for whom, and what is told to whom.

use std::time::Duration;

use batchin_testkit::{
    Account, Call, TestServer, both,
    sim::{Answer, Behaviour, End, Refusal, SimServer},
    usd,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn task(custom_id: &str, text: &str) -> Value {
    let messages = json!([{ "role": "user", "content": text }]);
    json!({ "custom_id": custom_id, "model": "chat-model", "request_body": { "messages": messages, "max_tokens": 3 } })
}

fn chat_of(server: &TestServer, account: &Account, text: &str) -> Call {
    let messages = json!([{ "role": "user", "content": text }]);
    let body = json!({ "model": "chat-model", "messages": messages, "max_tokens": 3 });
    server.anonymous(Method::POST, "/v1/chat/completions").key(&account.key).json(body)
}

async fn submit(server: &TestServer, tasks: Value) -> String {
    let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
    made["id"].as_str().unwrap().to_owned()
}

async fn until_final(server: &TestServer, id: &str) -> Value {
    let ended = async {
        loop {
            let batch = server.get(&format!("/v1/batches/{id}")).await.ok();
            if batch["finished_at"] != Value::Null {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the batch ends")
}

/// Probes until the list of models has this status.
async fn until_listed(server: &TestServer, status: u16) {
    let listed = async {
        while server.anonymous(Method::GET, "/v1/models").await.status != status {
            server.gateway.fleet().probe_all().await;
        }
    };
    tokio::time::timeout(PATIENCE, listed).await.expect("the list follows the health checks");
}

fn refuse(status: u16, message: &str) -> Behaviour {
    Behaviour::Refuse(Refusal::vllm(status, message))
}

fn sims(server: &TestServer) -> impl Iterator<Item = &SimServer> {
    std::iter::once(&server.sim).chain(&server.other_sim)
}

both! {
    async fn a_customer_whose_tasks_fail_stops_nobody_else(backend) {
        for behaviour in [refuse(500, "boom"), refuse(403, "flagged"), Behaviour::Refuse(Refusal::html(502))] {
            let server = TestServer::start().on(backend).with_worker().await;
            server.sim.script_text("poison", behaviour);
            let other = server.account("bob@example.com").await;
            server.grant(&other, usd("1")).await;
            let tasks: Vec<Value> = (0..8).map(|index| task(&index.to_string(), "poison")).collect();
            let id = submit(&server, json!(tasks)).await;
            server.sim.until_calls(4).await;
            let mut chats = 0;
            let asks = async {
                loop {
                    chat_of(&server, &other, "hello").await.ok();
                    chats += 1;
                    let batch = server.get(&format!("/v1/batches/{id}")).await.ok();
                    if batch["finished_at"] != Value::Null {
                        return batch;
                    }
                }
            };
            let batch = tokio::time::timeout(PATIENCE, asks).await.expect("the batch ends");
            assert_eq!((&batch["failed_tasks"], &batch["tasks"][0]["error"]["status_code"]), (&json!(8), &json!(502)));
            assert!(chats > 0);
            server.stop().await;
        }
    }

    async fn a_customer_whose_chats_fail_stops_no_other_batch(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_text("poison", refuse(500, "boom"));
        let other = server.account("bob@example.com").await;
        server.grant(&other, usd("1")).await;
        for _ in 0..5 {
            chat_of(&server, &other, "poison").await.error(StatusCode::BAD_GATEWAY, "upstream_error");
        }
        let tasks: Vec<Value> = (0..8).map(|index| task(&index.to_string(), "hello")).collect();
        let id = submit(&server, json!(tasks)).await;
        let asks = async {
            loop {
                chat_of(&server, &other, "poison").await.error(StatusCode::BAD_GATEWAY, "upstream_error");
            }
        };
        let batch = tokio::select! {
            batch = until_final(&server, &id) => batch,
            () = asks => unreachable!(),
        };
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(8)));
        server.stop().await;
    }

    async fn nobody_is_refused_while_the_health_check_passes(backend) {
        let server = TestServer::start().on(backend).await;
        server.sim.script_all(Behaviour::Drop);
        for _ in 0..8 {
            let reply = server.chat("chat-model").max_tokens(3).await;
            assert!([502, 503].contains(&reply.status), "{}", reply.text());
        }
        assert_eq!(server.sim.calls(), 8, "each was tried");
        let shown = server.anonymous(Method::GET, "/v1/models").await.ok();
        assert_eq!(shown["data"][0]["status"], "always_on", "it breaks for one account alone");
        let other = server.account("bob@example.com").await;
        server.grant(&other, usd("1")).await;
        for _ in 0..2 {
            chat_of(&server, &other, "hello").await.error(StatusCode::BAD_GATEWAY, "upstream_error");
        }
        let shown = server.anonymous(Method::GET, "/v1/models").await.ok();
        assert_eq!(shown["data"][0]["status"], "offline", "an open breaker shows, and is no outage");
        server.sim.script_all(Behaviour::Answer(Answer::of(3)));
        server.chat("chat-model").max_tokens(3).await.ok();
        let shown = server.anonymous(Method::GET, "/v1/models").await.ok();
        assert_eq!(shown["data"][0]["status"], "always_on");
        server.stop().await;
    }

    async fn one_account_s_broken_connections_shut_a_server_for_nobody_else(backend) {
        let server = TestServer::start().on(backend).with_second_sim().await;
        sims(&server).for_each(|sim| sim.script_text("poison", Behaviour::Drop));
        let other = server.account("bob@example.com").await;
        server.grant(&other, usd("1")).await;
        for round in 0..12_u64 {
            chat_of(&server, &server.owner, "poison").await;
            let before: Vec<u64> = sims(&server).map(SimServer::calls).collect();
            for _ in 0..2 {
                chat_of(&server, &other, "hello").await.ok();
            }
            for (sim, before) in sims(&server).zip(before) {
                assert!(sim.calls() > before, "round {round}: both serve");
            }
            let shown = server.anonymous(Method::GET, "/v1/models").await.ok();
            assert_eq!(shown["data"][0]["status"], "always_on");
        }
        server.stop().await;
    }

    async fn one_account_s_long_answers_leave_room_on_a_server_for_the_next(backend) {
        let server = TestServer::start().on(backend).with_slots(2).await;
        server.sim.script_text("long", Behaviour::Answer(Answer { end: End::Hang, ..Answer::of(3) }));
        let (greedy, other) = (server.account("eve@example.com").await, server.account("bob@example.com").await);
        server.grant(&greedy, usd("1")).await;
        server.grant(&other, usd("1")).await;
        let mut held = Vec::new();
        loop {
            let stream = chat_of(&server, &greedy, "long").stream().open().await;
            if stream.status() != 200 {
                assert_eq!(stream.status(), 503);
                assert!(stream.headers().contains_key("retry-after"));
                break;
            }
            held.push(stream);
        }
        assert_eq!(held.len(), 7, "alone it has nearly all of four times two");
        chat_of(&server, &other, "hello").await.ok();
        // Places that are given back are there for it again.
        let left = server.sim.aborted();
        held.clear();
        server.sim.until_aborted(left + 7).await;
        let again = async {
            while chat_of(&server, &greedy, "hello").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it is served again");
        server.stop().await;
    }

    async fn what_all_servers_say_of_themselves_is_not_told_as_the_clients_fault(backend) {
        let server = TestServer::start().on(backend).with_worker().with_second_sim().await;
        for refusal in [
            Refusal::vllm(404, "The model `chat-model` does not exist."),
            Refusal::string(401, "Incorrect API key sk-operator"),
            Refusal::vllm(402, "your balance is sk-operator"),
            Refusal::vllm(501, "sk-operator"),
        ] {
            sims(&server).for_each(|sim| sim.script_all(Behaviour::Refuse(refusal.clone())));
            for _ in 0..3 {
                let reply = server.chat("chat-model").max_tokens(3).await;
                assert!([502, 503].contains(&reply.status), "{refusal:?}: {}", reply.text());
                assert!(!reply.text().contains("sk-operator") && !reply.text().contains("exist"), "{}", reply.text());
            }
            let before = server.sim.calls() + server.other_sim.as_ref().unwrap().calls();
            let id = submit(&server, json!([task("a", "hi")])).await;
            let tried = async {
                while server.sim.calls() + server.other_sim.as_ref().unwrap().calls() < before + 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, tried).await.expect("the task is tried");
            sims(&server).for_each(|sim| sim.script_all(Behaviour::Answer(Answer::of(3))));
            assert_eq!(until_final(&server, &id).await["completed_tasks"], 1, "{refusal:?}: it is tried again later");
        }
        // What is about something else in the request is the client's.
        sims(&server).for_each(|sim| sim.script_all(refuse(404, "The image could not be fetched")));
        let reply = server.chat("chat-model").max_tokens(3).await;
        reply.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.stop().await;
    }

    async fn the_list_is_an_outage_only_when_no_health_check_passes(backend) {
        let server = TestServer::start().on(backend).with_second_sim().await;
        until_listed(&server, 200).await;
        server.sim.set_health(503);
        for _ in 0..3 {
            server.gateway.fleet().probe_all().await;
        }
        let list = server.anonymous(Method::GET, "/v1/models").await.ok();
        assert_eq!(list["data"][0]["status"], "always_on", "the other one serves it");
        server.other_sim.as_ref().unwrap().set_health(503);
        until_listed(&server, 503).await;
        server.anonymous(Method::GET, "/openai/v1/models").await.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
        assert_eq!(server.anonymous(Method::GET, "/v1/models/chat-model").await.ok()["status"], "offline");
        server.sim.set_health(200);
        until_listed(&server, 200).await;
        server.stop().await;
    }

    async fn the_list_is_public_and_tells_of_a_wrong_key(backend) {
        let server = TestServer::start().on(backend).await;
        for path in ["/v1/models", "/models", "/openai/v1/models", "/v1/models/chat-model", "/openai/v1/models/chat-model"] {
            server.anonymous(Method::GET, path).await.ok();
            server.get(path).await.ok();
            let wrong = server.anonymous(Method::GET, path).key("sk-wrong").await;
            wrong.error(StatusCode::UNAUTHORIZED, "unauthorized");
            let wrong = server.anonymous(Method::GET, path).header("x-api-key", "wrong").await;
            wrong.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        server.stop().await;
    }
}
