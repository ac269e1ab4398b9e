//! Holds: films: jobs that outlive their requests, in our shape and in OpenAI's. The server that makes them is a fake.

use std::time::Duration;

use batchin_testkit::{
    Account, Kind, TestServer, both,
    sim::{FILM, FilmFormat, FilmScript},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// Nano-dollars of the four seconds of the fake's film, at five cents a second.
pub(crate) const PRICE: i64 = 200_000_000;
/// The longest that a test waits.
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

fn wanted() -> Value {
    json!({ "model": "film-model", "prompt": "a kite", "duration_seconds": 4, "aspect_ratio": "9:16" })
}

pub(crate) async fn begun(server: &TestServer) -> String {
    let job = server.post("/v1/video/generate", wanted()).await.ok();
    job["id"].as_str().unwrap().to_owned()
}

/// Waits until the job is as it is to be.
pub(crate) async fn until(server: &TestServer, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    let looked = async {
        loop {
            let job = server.get(&format!("/v1/video/{id}")).await.ok();
            if is(&job) {
                return job;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("the job goes on")
}

pub(crate) async fn ended(server: &TestServer, id: &str) -> Value {
    until(server, id, |job| !matches!(job["status"].as_str(), Some("queued" | "in_progress"))).await
}

async fn spent(server: &TestServer, had: i64) -> i64 {
    had - server.balance().await.nanos()
}

const DOLLAR: i64 = 1_000_000_000;

both! {
    async fn a_film_is_made_stored_and_charged(backend) {
        for (kind, format) in [
            (Kind::VLLM_OMNI, FilmFormat::VllmOmni),
            (Kind::SGLANG_DIFFUSION, FilmFormat::SglangDiffusion),
            (Kind::OPENAI, FilmFormat::OpenAi),
        ] {
            let server = TestServer::start().on(backend).with_worker().with_kind(kind).await;
            server.sim.script_films(FilmScript { format, ..FilmScript::default() });
            let job = server.post("/v1/video/generate", wanted()).await.ok();
            let id = job["id"].as_str().unwrap();
            let url = format!("http://batchin.test/v1/video/{id}/content");
            assert!(id.starts_with("video_"), "{job}");
            let told = ["object", "status", "duration_seconds", "output_url"].map(|name| job[name].clone());
            assert_eq!(told, [json!("video.generation"), json!("queued"), json!(4), json!(url)]);
            let job = ended(&server, id).await;
            let told = ["status", "progress", "delivered_seconds", "cost_cents", "error"].map(|name| job[name].clone());
            assert_eq!(told, [json!("completed"), json!(100), json!(4.0), json!(20), Value::Null], "{kind} {job}");
            assert!(job["completed_at"].is_string() && job["expires_at"].is_string());
            let film = server.get(&format!("/v1/video/{id}/content")).await;
            assert_eq!((film.status, film.header("content-type"), &film.body[..]), (200, "video/mp4", FILM));
            assert_eq!(spent(&server, DOLLAR).await, PRICE, "{kind}");
            let rows = server.get("/v1/usage/logs").await.ok();
            assert_eq!((&rows[0]["endpoint"], rows[0]["estimated"].as_bool()), (&json!("/v1/video/generate"), Some(false)), "{rows}");
            let sent = server.sim.films().remove(0);
            let body = String::from_utf8(sent.body.to_vec()).unwrap();
            assert!(body.contains("480x848") && body.contains("a kite"), "{body}");
            server.sim.until_films_deleted(1).await;
            server.stop().await;
        }
    }

    async fn both_flavours_are_the_same_jobs(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        let json = json!({ "model": "film-model", "prompt": "a kite", "seconds": "4", "size": "832x480" });
        let reply = server.post("/v1/videos", json).await;
        assert_eq!(reply.header("openai-poll-after-ms"), "1000");
        let video = reply.ok();
        let mut names: Vec<_> = video.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let all = ["completed_at", "created_at", "error", "expires_at", "id", "model", "object", "progress", "prompt",
            "remixed_from_video_id", "seconds", "size", "status"];
        assert_eq!(names, all);
        assert_eq!((&video["object"], &video["seconds"], &video["size"]), (&json!("video"), &json!("4"), &json!("832x480")));
        let id = video["id"].as_str().unwrap().to_owned();
        ended(&server, &id).await;
        let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nfilm-model\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na bird\r\n--x--\r\n";
        let form = server.call(Method::POST, "/openai/v1/videos").header("content-type", "multipart/form-data; boundary=x").body(form);
        let second = form.await.ok();
        let second_id = second["id"].as_str().unwrap().to_owned();
        ended(&server, &second_id).await;
        for base in ["/v1", "", "/openai/v1"] {
            let shown = server.get(&format!("{base}/videos/{id}")).await.ok();
            assert_eq!((&shown["status"], &shown["prompt"]), (&json!("completed"), &json!("a kite")), "{base}");
            assert!(shown["completed_at"].is_i64());
            assert_eq!(server.get(&format!("{base}/videos/{id}/content?variant=video")).await.body, FILM);
            let ours = server.get(&format!("{base}/video/{id}")).await.ok();
            assert_eq!(ours["object"], "video.generation", "{base}");
        }
        let page = server.get("/v1/videos?limit=1").await.ok();
        assert_eq!((&page["data"][0]["id"], &page["has_more"], &page["last_id"]), (&json!(second_id), &json!(true), &json!(second_id)));
        let next = server.get(&format!("/v1/videos?after={second_id}")).await.ok();
        assert_eq!((&next["data"][0]["id"], &next["has_more"]), (&json!(id), &json!(false)));
        let listed = server.get("/v1/video").await.ok();
        assert_eq!((listed.as_array().unwrap().len(), &listed[1]["id"]), (2, &json!(id)));
        server.get(&format!("/v1/videos/{id}/content?variant=thumbnail")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        let gone = server.call(Method::DELETE, &format!("/v1/videos/{id}")).await.ok();
        assert_eq!(gone, json!({ "id": id, "object": "video.deleted", "deleted": true }));
        for path in ["/v1/videos/", "/v1/video/"] {
            server.get(&format!("{path}{id}")).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        server.get(&format!("/v1/video/{id}/content")).await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn bad_wishes_are_refused_at_their_field(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).await;
        let long = "x".repeat(32_001);
        for (path, name, value) in [
            ("/v1/video/generate", "prompt", json!("")),
            ("/v1/video/generate", "prompt", json!(long)),
            ("/v1/video/generate", "prompt", json!(7)),
            ("/v1/video/generate", "duration_seconds", json!(0)),
            ("/v1/video/generate", "duration_seconds", json!(61)),
            ("/v1/video/generate", "duration_seconds", json!(1.5)),
            ("/v1/video/generate", "aspect_ratio", json!("2:1")),
            ("/v1/video/generate", "model", json!(null)),
            ("/v1/video/generate", "seed", json!(1)),
            ("/v1/videos", "seconds", json!("0")),
            ("/v1/videos", "seconds", json!("four")),
            ("/v1/videos", "size", json!("1920x1080")),
            ("/v1/videos", "size", json!("big")),
            ("/v1/videos", "input_reference", json!({ "image_url": "http://x" })),
        ] {
            let mut body = json!({ "model": "film-model", "prompt": "a kite" });
            body[name] = value.clone();
            let error = server.post(path, body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], name, "{value}: {error}");
        }
        let size = json!({ "model": "film-model", "prompt": "a kite", "size": "1920x1080" });
        let error = server.post("/v1/videos", size).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("film-model") && message.contains("848x480"), "{message}");
        let other = |model: &str| server.post("/v1/video/generate", wanted()).with("model", model);
        other("none").await.error(StatusCode::NOT_FOUND, "model_not_found");
        let error = other("chat-model").await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "model");
        let task = json!({ "tasks": [{ "custom_id": "a", "model": "film-model", "url": "/v1/video/generate",
            "request_body": { "prompt": "a kite" } }] });
        server.post("/v1/batches", task).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!((server.sim.films().len(), server.get("/v1/video").await.ok()), (0, json!([])));
        server.stop().await;
    }

    async fn only_the_account_s_keys_see_its_films(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        let id = begun(&server).await;
        ended(&server, &id).await;
        let other: Account = server.account("eve@example.com").await;
        let paths = [format!("/v1/video/{id}"), format!("/v1/video/{id}/content"), format!("/v1/videos/{id}"),
            format!("/openai/v1/videos/{id}/content")];
        for path in &paths {
            server.anonymous(Method::GET, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            server.anonymous(Method::GET, path).key("batchin_api_no").await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            server.anonymous(Method::GET, path).key(&other.key).await.error(StatusCode::NOT_FOUND, "not_found");
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
        for path in [&paths[0], &paths[2]] {
            server.anonymous(Method::DELETE, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            server.anonymous(Method::DELETE, path).key(&other.key).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        for path in ["/v1/video", "/v1/videos"] {
            server.anonymous(Method::GET, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            let text = server.anonymous(Method::GET, path).key(&other.key).await.text();
            assert!(!text.contains(&id), "{text}");
        }
        for path in ["/v1/video/generate", "/v1/videos"] {
            let body = json!({ "model": "film-model", "prompt": "a kite" });
            server.anonymous(Method::POST, path).json(body.clone()).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
            let poor = server.anonymous(Method::POST, path).key(&other.key).json(body).await;
            poor.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        }
        server.get("/v1/video/video_0197f3a000007000800000000000000a").await.error(StatusCode::NOT_FOUND, "not_found");
        server.get("/v1/video/x").await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn what_fails_costs_nothing(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        for (status, code, says) in [(400, "invalid_request", "is unsafe"), (500, "upstream_error", "failed at the film")] {
            let message = "the prompt is unsafe".to_owned();
            server.sim.script_films(FilmScript { fails: Some((status, message)), ..FilmScript::default() });
            let job = ended(&server, &begun(&server).await).await;
            assert_eq!((&job["status"], &job["error"]["code"], &job["cost_cents"]), (&json!("failed"), &json!(code), &json!(0)));
            assert!(job["error"]["message"].as_str().unwrap().contains(says), "{job}");
            let id = job["id"].as_str().unwrap();
            let error = server.get(&format!("/v1/video/{id}/content")).await.error(StatusCode::NOT_FOUND, "not_found");
            assert!(error["message"].as_str().unwrap().contains("failed"), "{error}");
        }
        assert_eq!(spent(&server, DOLLAR).await, 0);
        server.stop().await;
    }

    async fn a_job_is_cancelled_in_any_state(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        let cancel = async |id: &str| server.call(Method::DELETE, &format!("/v1/video/{id}")).await.ok();
        // While a server makes it: the server is told.
        server.sim.script_films(FilmScript { takes: LONG, ..FilmScript::default() });
        let id = begun(&server).await;
        until(&server, &id, |job| job["status"] == "in_progress").await;
        assert_eq!(cancel(&id).await["status"], "cancelled");
        server.sim.until_films_deleted(1).await;
        assert_eq!(until(&server, &id, |_| true).await["status"], "cancelled");
        let shown = server.get(&format!("/v1/videos/{id}")).await.ok();
        assert_eq!((&shown["status"], &shown["error"]["code"]), (&json!("failed"), &json!("cancelled")));
        // In OpenAI's shape it is gone at once.
        let id = begun(&server).await;
        until(&server, &id, |job| job["status"] == "in_progress").await;
        server.call(Method::DELETE, &format!("/v1/videos/{id}")).await.ok();
        server.get(&format!("/v1/videos/{id}")).await.error(StatusCode::NOT_FOUND, "not_found");
        server.sim.until_films_deleted(2).await;
        // Once it is over, the film goes.
        server.sim.script_films(FilmScript::default());
        let id = begun(&server).await;
        assert_eq!(ended(&server, &id).await["status"], "completed");
        assert_eq!(cancel(&id).await["status"], "completed");
        server.get(&format!("/v1/video/{id}")).await.error(StatusCode::NOT_FOUND, "not_found");
        assert_eq!(spent(&server, DOLLAR).await, PRICE);
        server.stop().await;
    }

    async fn a_server_that_forgets_is_asked_three_times(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        server.sim.script_films(FilmScript { takes: LONG, ..FilmScript::default() });
        let id = begun(&server).await;
        server.sim.until_films(1).await;
        server.sim.script_films(FilmScript::default());
        server.sim.forget_films();
        let job = ended(&server, &id).await;
        assert_eq!((&job["status"], server.sim.films().len(), spent(&server, DOLLAR).await), (&json!("completed"), 2, PRICE));
        server.sim.script_films(FilmScript { takes: LONG, ..FilmScript::default() });
        let id = begun(&server).await;
        for films in 3..=5 {
            server.sim.until_films(films).await;
            server.sim.forget_films();
        }
        let job = ended(&server, &id).await;
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("upstream_error")));
        assert_eq!((server.sim.films().len(), spent(&server, DOLLAR).await), (5, PRICE));
        server.stop().await;
    }

    async fn the_most_that_it_can_cost_must_be_there(backend) {
        // Five seconds are held for a film of four.
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).with_balance("0.24").await;
        server.post("/v1/video/generate", wanted()).await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        server.grant(&server.owner, batchin_testkit::usd("0.01")).await;
        server.sim.script_films(FilmScript { takes: LONG, ..FilmScript::default() });
        let first = begun(&server).await;
        until(&server, &first, |job| job["status"] == "in_progress").await;
        server.post("/v1/video/generate", wanted()).await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        server.call(Method::DELETE, &format!("/v1/video/{first}")).await.ok();
        server.stop().await;
    }

    async fn a_key_s_budget_bounds_films(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).with_budget("0.30").await;
        ended(&server, &begun(&server).await).await;
        server.post("/v1/video/generate", wanted()).await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert_eq!(spent(&server, DOLLAR).await, PRICE);
        server.stop().await;
    }

    async fn an_idempotency_key_makes_one_film(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::VLLM_OMNI).await;
        let ask = || server.post("/v1/video/generate", wanted()).header("idempotency-key", "k1");
        let (first, again) = (ask().await.ok(), ask().await);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.ok(), first);
        let other = server.post("/v1/videos", json!({ "model": "film-model", "prompt": "a kite" })).header("idempotency-key", "k1");
        other.await.error(StatusCode::CONFLICT, "conflict");
        ended(&server, first["id"].as_str().unwrap()).await;
        assert_eq!(server.sim.films().len(), 1);
        server.stop().await;
    }

    async fn parts_of_a_large_film_come_as_they_lie(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::OPENAI).await;
        let padding = 20_000_000;
        server.sim.script_films(FilmScript { format: FilmFormat::OpenAi, padding, ..FilmScript::default() });
        let id = begun(&server).await;
        assert_eq!(ended(&server, &id).await["delivered_seconds"], json!(4.0));
        let part = server.get(&format!("/v1/video/{id}/content")).header("range", "bytes=4-7").await;
        assert_eq!((part.status, &part.body[..]), (206, &b"ftyp"[..]));
        let whole = server.get(&format!("/v1/video/{id}/content")).await;
        assert_eq!(whole.body.len() as u64, FILM.len() as u64 + 16 + padding);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn films_go_by_themselves_with_their_bytes() {
    let server = TestServer::start().with_worker().with_kind(Kind::VLLM_OMNI).await;
    let id = begun(&server).await;
    ended(&server, &id).await;
    let folder = server.blob_folder().join("films");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    server.clock.advance(Duration::from_secs(168 * 3_600 + 1));
    server.get(&format!("/v1/video/{id}")).await.error(StatusCode::NOT_FOUND, "not_found");
    let gone = async {
        while std::fs::read_dir(&folder).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the film goes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_too_long_is_left() {
    let server = TestServer::start().with_worker().with_kind(Kind::VLLM_OMNI).await;
    server.sim.script_films(FilmScript { takes: LONG, ..FilmScript::default() });
    let id = begun(&server).await;
    until(&server, &id, |job| job["status"] == "in_progress").await;
    server.clock.advance(Duration::from_secs(3_601));
    let job = ended(&server, &id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("upstream_timeout")));
    server.sim.until_films_deleted(1).await;
    assert_eq!(spent(&server, DOLLAR).await, 0);
    server.stop().await;
}
