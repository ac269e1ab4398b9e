//! Holds: model servers that are taken out and back by an admin, without losing a request.

use std::time::Duration;

use batchin_testkit::{
    Account, Kind, Reply, TestServer, both,
    sim::{Answer, Behaviour, FilmFormat, FilmScript},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const LIST: &str = "/v1/admin/upstreams";
/// Deltas of the stream that outlasts the drain of its server.
const DELTAS: usize = 80;

async fn tell(server: &TestServer, admin: &Account, name: &str, verb: &str) -> Reply {
    server.anonymous(Method::POST, &format!("{LIST}/{name}/{verb}")).key(&admin.key).await
}

async fn shown(server: &TestServer, admin: &Account, name: &str) -> Value {
    let listed = server.anonymous(Method::GET, LIST).key(&admin.key).await.ok();
    let mut all = listed["data"].as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap_or_else(|| panic!("{listed} has no {name}")).clone()
}

/// Looks until a server is as it is to be.
async fn until(server: &TestServer, admin: &Account, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let looked = async {
        loop {
            let upstream = shown(server, admin, name).await;
            if is(&upstream) {
                return upstream;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("it becomes so")
}

fn model_status(models: &Value) -> &Value {
    let mut all = models["data"].as_array().unwrap().iter();
    &all.find(|model| model["id"] == "chat-model").unwrap()["status"]
}

both! {
    async fn a_drained_server_ends_what_it_has_and_gets_nothing_new(backend) {
        let server = TestServer::start().on(backend).with_second_sim().with_worker().await;
        let admin = server.admin("root@example.com").await;
        let other = server.other_sim.as_ref().unwrap();
        let slow = Answer { gap: Duration::from_millis(25), ..Answer::of(DELTAS as u32) };
        for sim in [&server.sim, other] {
            sim.script_text("long", Behaviour::Answer(slow.clone()));
        }
        let messages = json!([{ "role": "user", "content": "long" }]);
        let mut stream = server.chat("chat-model").with("messages", messages).stream().open().await;
        let mut text = stream.chunk().await.unwrap().unwrap().to_vec();
        let (name, spare, busy, free) =
            if server.sim.calls() == 1 { ("sim", "sim-2", &server.sim, other) } else { ("sim-2", "sim", other, &server.sim) };
        assert_eq!((busy.calls(), free.calls()), (1, 0));

        let drained = tell(&server, &admin, name, "drain").await.ok();
        let told = ["name", "kind", "drained", "drained_by", "outstanding", "outstanding_elsewhere", "films", "idle", "removed"]
            .map(|member| drained[member].clone());
        let expected = [json!(name), json!("vllm"), json!(true), json!("root@example.com"), json!(1), json!(0), json!(0), json!(false), json!(false)];
        assert_eq!(told, expected, "{drained}");
        assert!(drained["drained_at"].is_string() && drained["models"].as_array().unwrap().contains(&json!("chat-model")));
        let first = drained["drained_at"].clone();
        assert_eq!(tell(&server, &admin, name, "drain").await.ok()["drained_at"], first, "said again, it stays as it was");
        for _ in 0..8 {
            server.chat("chat-model").max_tokens(3).await.ok();
        }
        assert_eq!((busy.calls(), free.calls()), (1, 8));
        assert_eq!(shown(&server, &admin, spare).await["drained"], false);

        while let Some(bytes) = stream.chunk().await.unwrap() {
            text.extend(bytes);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let deltas = text.matches("\"content\":\"").count() - text.matches("\"content\":\"\"").count();
        assert_eq!(deltas, DELTAS, "the stream ends whole");
        until(&server, &admin, name, |upstream| upstream["idle"] == true).await;

        tell(&server, &admin, spare, "drain").await.ok();
        let refused = server.chat("chat-model").max_tokens(3).await;
        refused.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(model_status(&server.get("/v1/models").await.ok()), "offline");
        assert_eq!(server.anonymous(Method::GET, "/health").await.status, 200);
        assert_eq!(server.anonymous(Method::GET, "/readyz").await.status, 200);
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": {
            "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 3 } });
        let batch = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.ok();
        let batch_at = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        // Ended, its task would have been refused.
        assert_eq!(server.get(&batch_at).await.ok()["finished_at"], Value::Null);
        assert_eq!((busy.calls(), free.calls()), (1, 8));

        let resumed = tell(&server, &admin, name, "resume").await.ok();
        let told = ["drained", "drained_at", "drained_by", "outstanding_elsewhere", "idle"].map(|member| resumed[member].clone());
        assert_eq!(told, [json!(false), Value::Null, Value::Null, Value::Null, json!(false)], "{resumed}");
        server.chat("chat-model").max_tokens(3).await.ok();
        assert_eq!(model_status(&server.get("/v1/models").await.ok()), "always_on");
        let ended = async {
            loop {
                let batch = server.get(&batch_at).await.ok();
                if batch["finished_at"] != Value::Null {
                    return batch;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let batch = tokio::time::timeout(PATIENCE, ended).await.expect("the batch ends");
        assert_eq!((&batch["status"], &batch["completed_tasks"]), (&json!("completed"), &json!(1)));
        assert_eq!((busy.calls(), free.calls()), (3, 8), "the task had waited for it");
        server.stop().await;
    }

    async fn a_film_is_asked_for_until_it_is_there(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        let admin = server.admin("root@example.com").await;
        let long = Duration::from_secs(3_600);
        server.sim.script_films(FilmScript { format: FilmFormat::VllmOmni, takes: long, ..FilmScript::default() });
        let wanted = json!({ "model": "film-model", "prompt": "a kite", "duration_seconds": 4 });
        let begun = async || {
            let job = server.post("/v1/video/generate", wanted.clone()).await.ok();
            format!("/v1/video/{}", job["id"].as_str().unwrap())
        };
        let ended = async |at: &str| {
            let looked = async {
                while server.get(at).await.ok()["status"] != "completed" {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, looked).await.expect("the film is made");
        };
        let first = begun().await;
        server.sim.until_films(1).await;
        until(&server, &admin, "sim", |upstream| upstream["films"] == 1).await;
        assert_eq!(tell(&server, &admin, "sim", "drain").await.ok()["idle"], false);
        let second = begun().await;
        server.sim.finish_films();
        ended(&first).await;
        until(&server, &admin, "sim", |upstream| upstream["idle"] == true).await;
        assert_eq!((server.sim.films().len(), &server.get(&second).await.ok()["status"]), (1, &json!("queued")));
        tell(&server, &admin, "sim", "resume").await.ok();
        server.sim.until_films(2).await;
        server.sim.finish_films();
        ended(&second).await;
        server.stop().await;
    }

    async fn only_admins_operate(backend) {
        let server = TestServer::start().on(backend).await;
        let admin = server.admin("root@example.com").await;
        let verbs = [(Method::GET, LIST.to_owned()), (Method::GET, "/v1/admin/chains".to_owned())]
            .into_iter()
            .chain(["drain", "resume"].map(|verb| (Method::POST, format!("{LIST}/sim/{verb}"))));
        for (method, path) in verbs {
            let asked = || server.anonymous(method.clone(), &path);
            asked().await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            asked().key("sk-nobody").await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            // Another account's, of a lower role: by key and by session.
            asked().key(&server.owner.key).await.error(StatusCode::FORBIDDEN, "forbidden");
            let session = async |account: &Account| {
                let login = json!({ "email": account.email, "password": account.password });
                let session = server.anonymous(Method::POST, "/v1/users/login").json(login).await.ok();
                session["access_token"].as_str().unwrap().to_owned()
            };
            asked().key(&session(&server.owner).await).await.error(StatusCode::FORBIDDEN, "forbidden");
            asked().key(&session(&admin).await).await.ok();
            asked().key(&admin.key).await.ok();
            let bound = json!({ "name": "bound", "monthly_budget_cents": 100 });
            let bound = server.anonymous(Method::POST, "/v1/keys").key(&admin.key).json(bound).await.ok();
            asked().key(bound["key"].as_str().unwrap()).await.error(StatusCode::FORBIDDEN, "forbidden");
        }
        for verb in ["drain", "resume"] {
            for name in ["sim-9", "%20", "a%00b"] {
                tell(&server, &admin, name, verb).await.error(StatusCode::NOT_FOUND, "not_found");
            }
        }
        assert_eq!(shown(&server, &admin, "sim").await["drained"], false);
        assert!(!server.anonymous(Method::GET, LIST).key(&admin.key).await.text().contains("127.0.0.1"));
        server.stop().await;
    }
}
