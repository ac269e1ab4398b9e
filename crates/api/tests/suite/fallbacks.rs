//! Holds: models that answer where no server of the one that was asked for does.

use std::time::Duration;

use batchin_domain::{ClassPrices, Clock as _, Rate, Tariff, price::Factor};
use batchin_gateway::{Availability, Catalog, Model};
use batchin_store::PriceList;
use batchin_testkit::{
    TestServer, both,
    sim::{Behaviour, Refusal},
    usd,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{batches::until_final, inference::cost, odd_servers::spent};

/// What `spare-model` costs for each token that `chat-model` costs 1 for.
const DEARER: i64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

fn spare_prices() -> ClassPrices {
    let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
    let factor = |text| Factor::parse(text).unwrap();
    ClassPrices::new(Tariff::of_tokens(rate("0.2"), rate("0.8")), factor("1"), factor("0.5"), factor("0.25"))
}

/// Serves `chat-model` on the first model server alone, and where that fails `spare-model` on the second.
async fn with_fallback(server: &TestServer, change: impl Fn(&mut Model)) {
    let catalog = server.gateway.catalog();
    let mut chat = (**catalog.find("chat-model").unwrap()).clone();
    let mut spare = chat.clone();
    (chat.upstreams, chat.fallback) = (vec!["sim".to_owned()], Some("spare-model".to_owned()));
    (spare.id, spare.aliases) = ("spare-model".to_owned(), Vec::new());
    (spare.upstreams, spare.prices) = (vec!["sim-2".to_owned()], spare_prices());
    change(&mut chat);
    let models = vec![chat, spare];
    let body = PriceList::body(models.iter().map(|model| (model.id.as_str(), &model.prices)));
    let version = server.store.prices().publish_prices("with a fallback", &body, server.clock.now()).await.unwrap();
    server.gateway.reload(Catalog::new(version, models).unwrap());
}

/// A server whose first model server is gone.
async fn broken(backend: batchin_testkit::Backend, balance: &str) -> TestServer {
    let server = TestServer::start().on(backend).with_worker().with_second_sim().with_balance(balance).await;
    with_fallback(&server, |_| {}).await;
    server.sim.script_all(Behaviour::Drop);
    server
}

async fn run_batch(server: &TestServer) -> Value {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let task =
        json!({ "custom_id": "a", "model": "chat-model", "request_body": { "messages": messages, "max_tokens": 5 } });
    let made = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.ok();
    until_final(server, made["id"].as_str().unwrap()).await["tasks"][0].clone()
}

async fn last_row(server: &TestServer) -> Value {
    server.get("/v1/usage/logs").await.ok()[0].clone()
}

both! {
    async fn the_fallback_answers_at_its_own_price_and_by_its_own_name(backend) {
        let server = broken(backend, "1").await;
        let reply = server.chat("gpt-x").max_tokens(5).await;
        assert_eq!(reply.header("x-batchin-model-served"), "spare-model");
        let answer = reply.ok();
        assert_eq!((&answer["model"], &answer["usage"]["completion_tokens"]), (&json!("spare-model"), &json!(5)));
        let first = spent(&server).await;
        assert_eq!(first, DEARER * cost(&answer["usage"]));
        assert_eq!(last_row(&server).await["model"], "spare-model");
        let reply = server.chat("chat-model").max_tokens(5).with("stream_options", json!({ "include_usage": true })).stream().await;
        assert_eq!(reply.header("x-batchin-model-served"), "spare-model");
        let text = reply.text();
        assert!(text.contains("\"model\":\"spare-model\"") && !text.contains("chat-model"), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let body = json!({ "model": "chat-model", "input": "hi", "max_output_tokens": 16 });
        assert_eq!(server.post("/v1/responses", body).await.ok()["model"], "spare-model");
        // What the server of the model that was asked for can do goes there again.
        server.sim.script_all(Behaviour::default());
        let again = async {
            while server.chat("chat-model").max_tokens(5).await.ok()["model"] != "chat-model" {
                server.gateway.fleet().probe_all().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it is asked again");
        assert_eq!(server.store.check().await.unwrap().faults.len(), 0);
        server.stop().await;
    }

    async fn what_is_the_request_s_fault_stays_with_its_model(backend) {
        let server = TestServer::start().on(backend).with_worker().with_second_sim().await;
        with_fallback(&server, |_| {}).await;
        server.sim.script_all(Behaviour::Refuse(Refusal::vllm(400, "the image could not be read")));
        let reply = server.chat("chat-model").max_tokens(5).await;
        reply.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(run_batch(&server).await["error"]["status_code"], 400);
        let others = server.other_sim.as_ref().unwrap();
        assert_eq!((others.calls(), spent(&server).await), (0, 0));
        server.stop().await;
    }

    async fn a_fallback_that_cannot_be_paid_for_is_not_asked(backend) {
        // Enough for the model that is asked for, and not for ten times of it.
        let server = broken(backend, "0.0002").await;
        for _ in 0..3 {
            let reply = server.chat("chat-model").max_tokens(1_000).await;
            assert!([502, 503].contains(&reply.status), "as without a fallback: {}", reply.text());
        }
        let others = server.other_sim.as_ref().unwrap();
        assert_eq!((others.calls(), server.balance().await.nanos()), (0, usd("0.0002").nanos()));
        let reply = server.chat("chat-model").max_tokens(5).await.ok();
        assert_eq!(reply["model"], "spare-model", "what was set aside for the first is free for the second");
        server.stop().await;
    }

    async fn where_no_fallback_answers_either_the_client_is_told(backend) {
        let server = broken(backend, "1").await;
        server.other_sim.as_ref().unwrap().script_all(Behaviour::Drop);
        let reply = server.chat("chat-model").max_tokens(5).await;
        assert!([502, 503].contains(&reply.status), "{}", reply.text());
        assert!(server.other_sim.as_ref().unwrap().calls() > 0);
        assert_eq!(spent(&server).await, 0);
        server.stop().await;
    }

    async fn a_model_out_of_service_is_served_by_its_fallback(backend) {
        let server = TestServer::start().on(backend).with_worker().with_second_sim().await;
        with_fallback(&server, |chat| chat.availability = Availability::Offline).await;
        let reply = server.chat("chat-model").max_tokens(5).await;
        assert_eq!(reply.header("x-batchin-model-served"), "spare-model");
        assert_eq!(run_batch(&server).await["result"]["model"], "spare-model");
        assert_eq!(server.sim.calls(), 0);
        server.stop().await;
    }

    async fn a_batch_s_tasks_go_to_the_fallback(backend) {
        let server = broken(backend, "1").await;
        for health in [200, 500] {
            // Once it fails when it is asked; once it is known to be away.
            server.sim.set_health(health);
            server.gateway.fleet().probe_all().await;
            let before = spent(&server).await;
            let line = run_batch(&server).await;
            assert_eq!(line["result"]["model"], "spare-model", "{line}");
            let row = last_row(&server).await;
            assert_eq!((&row["model"], &row["class"]), (&json!("spare-model"), &json!("high")));
            assert_eq!(spent(&server).await - before, DEARER * cost(&line["result"]["usage"]));
        }
        let listed = server.anonymous(Method::GET, "/v1/models").await.ok();
        assert!(listed["data"].as_array().is_some(), "{listed}");
        server.stop().await;
    }
}
