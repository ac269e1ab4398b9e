//! Holds: requests in OpenAI's tiers of service, and what those get who wait for less.

use std::time::Duration;

use batchin_domain::Class;
use batchin_gateway::Catalog;
use batchin_testkit::{Call, Reply, TestServer, both, sim::Behaviour, usd};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::inference::cost;

const PATIENCE: Duration = Duration::from_secs(30);

fn flex(server: &TestServer) -> Call {
    server.chat("chat-model").max_tokens(3).with("service_tier", "flex")
}

fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// A request under way; dropped, its client leaves.
fn sent(call: Call) -> JoinSet<Reply> {
    let mut requests = JoinSet::new();
    requests.spawn(call.send());
    requests
}

async fn answer_of(mut request: JoinSet<Reply>) -> Value {
    let reply = tokio::time::timeout(PATIENCE, request.join_next()).await.expect("it is answered");
    reply.unwrap().unwrap().ok()
}

/// Has a person wait for an answer that never comes.
async fn occupy(server: &TestServer) -> JoinSet<Reply> {
    let calls = server.sim.calls();
    server.sim.queue(Behaviour::Hang);
    let person = sent(server.chat("chat-model").max_tokens(3));
    server.sim.until_calls(calls + 1).await;
    person
}

/// Waits until so many requests of one model stand in line.
async fn until_waiting(server: &TestServer, number: usize) {
    let waiting = async {
        while server.gateway.dispatcher().waiting() != number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it stands in line");
}

async fn until_nothing_is_held(server: &TestServer) {
    let free = async {
        while server.store.check().await.unwrap().leased_nanos != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("what was set aside goes back");
}

both! {
    async fn the_answer_names_the_tier_that_was_served(backend) {
        let server = TestServer::start().on(backend).await;
        for (asked, served) in [("flex", "flex"), ("default", "default"), ("auto", "default"), ("priority", "default")] {
            let chat = || server.chat("chat-model").max_tokens(3).with("service_tier", asked);
            assert_eq!(chat().await.ok()["service_tier"], served);
            let stream = chat().with("stream_options", json!({ "include_usage": true })).stream().await.text();
            assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
            let chunks = events(&stream);
            assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk["service_tier"] == served), "{stream}");
            let body = json!({ "model": "chat-model", "input": "hi", "max_output_tokens": 16, "service_tier": asked });
            assert_eq!(server.post("/v1/responses", body.clone()).await.ok()["service_tier"], served);
            let mut streamed = body;
            streamed["stream"] = json!(true);
            let stream = server.post("/v1/responses", streamed).await.text();
            assert!(stream.contains(&format!("\"service_tier\":\"{served}\"")), "{stream}");
            let body = json!({ "model": "chat-model", "prompt": "hi", "max_tokens": 3, "service_tier": asked });
            assert_eq!(server.post("/v1/completions", body).await.ok()["service_tier"], served);
        }
        assert!(server.sim.requests().iter().all(|sent| !String::from_utf8_lossy(&sent.body).contains("service_tier")));
        let plain = server.chat("chat-model").max_tokens(3).await.ok();
        assert_eq!(plain.get("service_tier"), None, "nobody asked");
        let stream = server.chat("chat-model").max_tokens(3).stream().await.text();
        assert!(!stream.contains("service_tier"), "{stream}");
        let wrong = server.chat("chat-model").max_tokens(3).with("service_tier", "cheap").await;
        let error = wrong.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "service_tier");
        assert!(error["message"].as_str().unwrap().contains("auto, default, flex"), "{error}");
        server.stop().await;
    }

    async fn flex_costs_what_low_batches_cost(backend) {
        let server = TestServer::start().on(backend).await;
        let usage = flex(&server).await.ok()["usage"].clone();
        let spent = usd("1").nanos() - server.balance().await.nanos();
        assert_eq!(2 * spent, cost(&usage), "half the price");
        let row = server.get("/v1/usage/logs").await.ok()[0].clone();
        assert_eq!(row["class"], "low");
        server.stop().await;
    }

    async fn flex_waits_until_a_gate_opens_and_in_turn(backend) {
        let server = TestServer::start().on(backend).with_slots(1).await;
        let person = occupy(&server).await;
        let ask = |text: &str| {
            let messages = json!([{ "role": "user", "content": text }]);
            let call = flex(&server).with("messages", messages);
            sent(call)
        };
        let first = ask("first");
        until_waiting(&server, 1).await;
        let second = ask("second");
        until_waiting(&server, 2).await;
        assert_eq!(server.sim.calls(), 1, "people come first");
        drop(person);
        for waiting in [first, second] {
            assert_eq!(answer_of(waiting).await["service_tier"], "flex");
        }
        let sent = server.sim.requests();
        let texts = sent.iter().skip(1).map(|sent| String::from_utf8_lossy(&sent.body).contains("first"));
        assert_eq!(texts.collect::<Vec<_>>(), [true, false], "who came first is served first");
        until_waiting(&server, 0).await;
        server.stop().await;
    }

    async fn flex_that_waits_in_vain_is_told_so_and_costs_nothing(backend) {
        let server = TestServer::start().on(backend).with_slots(1).with_flex_patience(Duration::from_millis(100)).await;
        let person = occupy(&server).await;
        let reply = flex(&server).await;
        reply.error(StatusCode::TOO_MANY_REQUESTS, "resource_unavailable");
        assert_eq!(reply.header("retry-after"), "30");
        drop(person);
        until_nothing_is_held(&server).await;
        assert_eq!(server.balance().await.nanos(), usd("1").nanos());
        // Nobody waits for a server that is not there.
        server.sim.script_all(Behaviour::Drop);
        let reply = flex(&server).await;
        assert!([502, 503].contains(&reply.status), "{}", reply.text());
        server.stop().await;
    }

    async fn a_client_that_leaves_the_line_gives_all_back(backend) {
        let server = TestServer::start().on(backend).with_slots(1).await;
        let person = occupy(&server).await;
        for streams in [false, true] {
            let call = if streams { flex(&server).stream() } else { flex(&server) };
            let waiting = sent(call.header("idempotency-key", &format!("k{streams}")));
            until_waiting(&server, 1).await;
            drop(waiting);
            until_waiting(&server, 0).await;
        }
        drop(person);
        until_nothing_is_held(&server).await;
        assert_eq!((server.sim.calls(), server.balance().await.nanos()), (1, usd("1").nanos()));
        // Its key is free for the next try, and answers once.
        let again = || flex(&server).header("idempotency-key", "kfalse");
        let first = again().await.ok();
        let second = again().await;
        assert_eq!((second.header("idempotent-replayed"), second.json()), ("true", first));
        assert_eq!(server.sim.calls(), 2);
        server.stop().await;
    }

    async fn fill_gives_way_to_people_and_goes_on_afterwards(backend) {
        let server = TestServer::start().on(backend).with_slots(1).await;
        let catalog = server.gateway.catalog();
        let models = catalog.models().iter().map(|model| {
            let mut model = (**model).clone();
            model.flex_class = Class::Fill;
            model
        });
        server.gateway.reload(Catalog::new(catalog.version(), models.collect()).unwrap());
        server.sim.queue(Behaviour::Hang);
        let waiting = sent(flex(&server));
        server.sim.until_calls(1).await;
        // Somebody waits behind it for a moment; then it gives way.
        let person = occupy(&server).await;
        let gave_way = async {
            while server.sim.aborted() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gave_way).await.expect("it gives way");
        until_waiting(&server, 1).await;
        drop(person);
        let answer = answer_of(waiting).await;
        assert_eq!((&answer["service_tier"], server.sim.calls()), (&json!("flex"), 3));
        let usage = &answer["usage"];
        assert_eq!(4 * (usd("1").nanos() - server.balance().await.nanos()), cost(usage), "a quarter of the price");
        assert_eq!(server.get("/v1/usage/logs").await.ok()[0]["class"], "fill");
        server.stop().await;
    }

    async fn who_stands_in_line_goes_to_the_servers_of_a_reload(backend) {
        let server = TestServer::start().on(backend).with_slots(1).with_second_sim().await;
        let serve_on = |name: &str| {
            let fleet = server.gateway.fleet();
            let config = ["sim", "sim-2"].map(|name| fleet.known(name).unwrap().config().clone());
            fleet.reload(config.into_iter().filter(|one| one.name() == name).collect()).unwrap();
            let catalog = server.gateway.catalog();
            let models = catalog.models().iter().map(|model| {
                let mut model = (**model).clone();
                model.upstreams = vec![name.to_owned()];
                model
            });
            server.gateway.reload(Catalog::new(catalog.version(), models.collect()).unwrap());
        };
        serve_on("sim");
        let person = occupy(&server).await;
        let waiting = sent(flex(&server));
        until_waiting(&server, 1).await;
        serve_on("sim-2");
        assert_eq!(answer_of(waiting).await["service_tier"], "flex");
        let other = server.other_sim.as_ref().unwrap();
        assert_eq!((server.sim.calls(), other.calls(), server.sim.aborted()), (1, 1, 0));
        drop(person);
        server.stop().await;
    }

    async fn a_batch_s_tasks_have_their_batch_s_class(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let body = json!({ "messages": messages, "max_tokens": 5, "service_tier": "flex" });
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
        let made = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.ok();
        let batch = crate::batches::until_final(&server, made["id"].as_str().unwrap()).await;
        let result = &batch["tasks"][0]["result"];
        assert_eq!((result["choices"][0]["finish_reason"].clone(), result.get("service_tier")), (json!("length"), None));
        assert_eq!(server.get("/v1/usage/logs").await.ok()[0]["class"], "high");
        server.stop().await;
    }
}
