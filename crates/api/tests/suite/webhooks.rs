//! Holds: webhooks from the batch that ends to the receiver, and what their account sees and steers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use batchin_domain::Timestamp;
use batchin_tasks::Tasks;
use batchin_testkit::{TestServer, both};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(20);

/// One request that a receiver got.
#[derive(Clone)]
struct Got {
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn signatures(&self) -> Vec<&str> {
        self.header("webhook-signature").split(' ').collect()
    }

    /// Checks as a receiver does, with code that is not the sender's.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let signed =
            [self.header("webhook-id").as_bytes(), b".", self.header("webhook-timestamp").as_bytes(), b".", &self.body];
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed.concat())));
        self.signatures().contains(&expected.as_str())
    }
}

/// RFC 2104, for keys that are no longer than a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).into()
}

/// Statuses to answer with, and what `Retry-After` says.
type Script = Arc<Mutex<VecDeque<(u16, Option<&'static str>)>>>;

/// A customer's server: it keeps what it gets and answers as scripted, with 204 when nothing is.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    script: Script,
    tasks: Tasks,
}

impl Receiver {
    async fn start() -> Self {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let script: Script = Arc::default();
        let (keep, answers) = (Arc::clone(&got), Arc::clone(&script));
        let hook = async move |headers: HeaderMap, body: Bytes| {
            keep.lock().unwrap().push(Got { headers, body });
            let (status, retry_after) = answers.lock().unwrap().pop_front().unwrap_or((204, None));
            let mut headers = HeaderMap::new();
            if let Some(pause) = retry_after {
                headers.insert("retry-after", pause.parse().unwrap());
            }
            (StatusCode::from_u16(status).unwrap(), headers)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        tasks.spawn("receiver", move |stop| async move {
            let stopped = async move { stop.cancelled().await };
            let router = Router::new().route("/hook", post(hook));
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { url, got, script, tasks }
    }

    fn will_answer(&self, status: u16, retry_after: Option<&'static str>) {
        self.script.lock().unwrap().push_back((status, retry_after));
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until it has got so many requests.
    async fn has(&self, count: usize) -> Vec<Got> {
        let enough = async {
            while self.got().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.unwrap_or_else(|_| panic!("{} of {count} came", self.got().len()));
        self.got()
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shutdown(PATIENCE).await, 0);
    }
}

/// Runs a batch that tells `url` of its end; returns its id.
async fn batch(server: &TestServer, url: &str) -> String {
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 2 });
    let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
    let made = server.post("/v1/batches", json!({ "tasks": [task], "webhook_url": url })).await.ok();
    made["id"].as_str().unwrap().to_owned()
}

async fn rotate(server: &TestServer) -> String {
    let made = server.call(Method::POST, "/v1/webhooks/secret").await.ok();
    assert!(made["created_at"].is_string(), "{made}");
    made["secret"].as_str().unwrap().to_owned()
}

async fn deliveries(server: &TestServer, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/webhooks/deliveries{query}")).await.ok();
    page["data"].as_array().unwrap().clone()
}

/// Waits until the newest delivery stands there with so many attempts.
async fn stands(server: &TestServer, status: &str, attempts: usize) -> Value {
    let seen = async {
        loop {
            let newest = deliveries(server, "?limit=1").await.pop().unwrap_or_default();
            let tried = newest["attempts"].as_array().map_or(0, Vec::len);
            if newest["status"] == status && tried == attempts {
                return newest;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, seen).await {
        Ok(newest) => newest,
        Err(_) => panic!("not {status} after {attempts}: {:?}", deliveries(server, "").await),
    }
}

both! {
    async fn the_end_of_a_batch_is_told_and_signed(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        let secret = rotate(&server).await;
        let id = batch(&server, &receiver.url).await;
        let got = receiver.has(1).await.remove(0);
        let event = got.json();
        assert_eq!((&event["object"], &event["type"], &event["data"]), (&json!("event"), &json!("batch.completed"), &json!({ "id": id })));
        assert_eq!(event["id"], got.header("webhook-id"));
        assert!(event["created_at"].is_u64() && got.header("webhook-id").starts_with("evt_"), "{event}");
        assert!(got.is_signed_with(&secret));
        assert!(!got.is_signed_with(&format!("whsec_{}", STANDARD.encode([1; 32]))));
        assert_eq!(got.signatures().len(), 1);

        let delivery = stands(&server, "delivered", 1).await;
        assert_eq!((&delivery["id"], &delivery["type"], &delivery["batch_id"]), (&event["id"], &event["type"], &json!(id)));
        assert_eq!((&delivery["url"], &delivery["next_try_at"]), (&json!(receiver.url), &Value::Null));
        let attempt = &delivery["attempts"][0];
        assert_eq!((&attempt["status"], &attempt["failure"]), (&json!(204), &Value::Null));
        assert!(attempt["duration_ms"].is_f64() && attempt["at"].is_string(), "{attempt}");
        assert_eq!(receiver.got().len(), 1);
        server.stop().await;
        receiver.stop().await;
    }

    async fn a_failed_try_is_made_again_under_the_same_id(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        receiver.will_answer(500, None);
        receiver.will_answer(503, Some("3600"));
        batch(&server, &receiver.url).await;
        let waiting = stands(&server, "pending", 1).await;
        assert!(waiting["next_try_at"].is_string());
        assert_eq!(receiver.got().len(), 1);
        server.clock.advance(Duration::from_secs(6));
        let waiting = stands(&server, "pending", 2).await;
        // The receiver's own pause counts, and up to a tenth more; not the schedule's five minutes.
        let time = |value: &Value| Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap();
        let pause = time(&waiting["next_try_at"]) - time(&waiting["attempts"][1]["at"]);
        assert!(pause >= Duration::from_secs(3_600) && pause < Duration::from_secs(4_000), "{pause:?}");
        server.clock.advance(Duration::from_secs(4_000));
        let delivered = stands(&server, "delivered", 3).await;
        let statuses: Vec<_> = delivered["attempts"].as_array().unwrap().iter().map(|a| a["status"].clone()).collect();
        assert_eq!(statuses, [json!(500), json!(503), json!(204)]);
        let got = receiver.got();
        assert!(got.iter().all(|one| one.header("webhook-id") == got[0].header("webhook-id") && one.body == got[0].body));
        assert_ne!(got[0].header("webhook-timestamp"), got[2].header("webhook-timestamp"));
        server.stop().await;
        receiver.stop().await;
    }

    async fn a_receiver_switches_itself_off_and_a_replay_on(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        receiver.will_answer(410, None);
        batch(&server, &receiver.url).await;
        let off = stands(&server, "off", 1).await;
        batch(&server, &receiver.url).await;
        stands(&server, "off", 0).await;
        assert_eq!(receiver.got().len(), 1, "nothing more is sent");
        assert_eq!(deliveries(&server, "?status=off").await.len(), 2);

        let replay = format!("/v1/webhooks/deliveries/{}/replay", off["id"].as_str().unwrap());
        let replayed = server.call(Method::POST, &replay).await.ok();
        assert_eq!((&replayed["id"], &replayed["status"]), (&off["id"], &json!("pending")));
        let again = receiver.has(2).await.remove(1);
        assert_eq!(again.header("webhook-id"), off["id"]);
        batch(&server, &receiver.url).await;
        receiver.has(3).await;
        stands(&server, "delivered", 1).await;
        server.stop().await;
        receiver.stop().await;
    }

    async fn an_old_secret_signs_beside_the_new_one_for_a_day(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        // Without a secret there is a signature all the same.
        batch(&server, &receiver.url).await;
        assert_eq!(receiver.has(1).await[0].signatures().len(), 1);
        let (old, new) = (rotate(&server).await, rotate(&server).await);
        assert_ne!(old, new);
        batch(&server, &receiver.url).await;
        let both = receiver.has(2).await.remove(1);
        assert_eq!(both.signatures().len(), 2);
        assert!(both.is_signed_with(&old) && both.is_signed_with(&new));
        stands(&server, "delivered", 1).await;
        server.clock.advance(Duration::from_secs(24 * 3600 + 1));
        batch(&server, &receiver.url).await;
        let one = receiver.has(3).await.remove(2);
        assert!(one.is_signed_with(&new) && !one.is_signed_with(&old));
        assert_eq!(one.signatures().len(), 1);

        let keyed = || server.call(Method::POST, "/v1/webhooks/secret").header("idempotency-key", "k");
        keyed().await.ok();
        keyed().await.error(StatusCode::CONFLICT, "conflict");
        server.stop().await;
        receiver.stop().await;
    }

    async fn a_dead_receiver_holds_nobody_up(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        // It takes connections and never answers: the listener's backlog is all that there is.
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead_url = format!("http://{}/hook", dead.local_addr().unwrap());
        for _ in 0..8 {
            batch(&server, &dead_url).await;
        }
        batch(&server, &receiver.url).await;
        receiver.has(1).await;
        // The receiver has it before its answer is noted.
        let noted = async { while deliveries(&server, "?status=delivered").await.is_empty() { tokio::time::sleep(Duration::from_millis(10)).await; } };
        tokio::time::timeout(PATIENCE, noted).await.unwrap();
        assert_eq!(deliveries(&server, "?status=pending").await.len(), 8);
        drop(dead);
        server.stop().await;
        receiver.stop().await;
    }

    async fn the_log_is_paged_and_shows_no_secret(backend) {
        let server = TestServer::start().on(backend).with_worker().with_local_webhooks().await;
        for n in 0..3 {
            batch(&server, &format!("http://127.0.0.1:59999/{n}?token=s3cret")).await;
        }
        let all = async { while deliveries(&server, "").await.len() < 3 { tokio::time::sleep(Duration::from_millis(10)).await; } };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
        let listed = server.get("/v1/webhooks/deliveries").await;
        assert!(!listed.text().contains("s3cret"), "{}", listed.text());
        let first = server.get("/v1/webhooks/deliveries?limit=2").await.ok();
        let last = first["next_after"].as_str().unwrap();
        assert_eq!(first["data"][1]["id"], last);
        let rest = server.get(&format!("/v1/webhooks/deliveries?limit=2&after={last}")).await.ok();
        assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_after"]), (1, &Value::Null));
        for (query, param) in [("status=gone", "status"), ("after=nonsense", "after"), ("limit=0", "limit"), ("aftr=1", "aftr"),
            ("after=evt_00000000000000000000000000000000", "after")] {
            let error = server.get(&format!("/v1/webhooks/deliveries?{query}")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param, "{query}");
        }
        server.stop().await;
    }

    async fn somebody_elses_deliveries_are_not_there(backend) {
        let (server, receiver) = (TestServer::start().on(backend).with_worker().with_local_webhooks().await, Receiver::start().await);
        let stranger = server.account("eve@example.com").await;
        batch(&server, &receiver.url).await;
        let delivery = stands(&server, "delivered", 1).await;
        let id = delivery["id"].as_str().unwrap();
        let seen = server.anonymous(Method::GET, "/v1/webhooks/deliveries").key(&stranger.key).await.ok();
        assert_eq!(seen, json!({ "data": [], "next_after": null }));
        for id in [id, "evt_00000000000000000000000000000000", "nonsense"] {
            let replay = format!("/v1/webhooks/deliveries/{id}/replay");
            server.anonymous(Method::POST, &replay).key(&stranger.key).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        let after = format!("/v1/webhooks/deliveries?after={id}");
        server.anonymous(Method::GET, &after).key(&stranger.key).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.anonymous(Method::POST, "/v1/webhooks/secret").key(&stranger.key).await.ok();
        batch(&server, &receiver.url).await;
        assert_eq!(receiver.has(2).await[1].signatures().len(), 1, "another account's rotation is its own");
        server.stop().await;
        receiver.stop().await;
    }

    async fn a_url_that_nothing_can_be_sent_to_is_refused_with_the_batch(backend) {
        let server = TestServer::start().on(backend).await;
        let body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
        for (url, says) in [
            ("http://example.com/", "https://"), ("ftp://example.com/", "https://"), ("example.com", "is not a URL"),
            ("https://ada:pw@example.com/", "password"), ("https://example.com:25/", "port 25"),
            ("https://127.0.0.1/", "private"), ("https://0x7f.1/", "private"), ("https://2130706433/", "private"),
            ("https://[::ffff:127.0.0.1]/", "private"), ("https://169.254.169.254/latest", "private"),
        ] {
            let reply = server.post("/v1/batches", json!({ "tasks": [task], "webhook_url": url })).await;
            let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], "webhook_url", "{url}");
            assert!(error["message"].as_str().unwrap().contains(says), "{url}: {error}");
        }
        assert_eq!(server.get("/v1/batches").await.ok(), json!([]));
        let good = json!({ "tasks": [task], "webhook_url": "https://hooks.example.com:8443/a?b=c" });
        server.post("/v1/batches", good).await.ok();
        server.stop().await;
    }
}
