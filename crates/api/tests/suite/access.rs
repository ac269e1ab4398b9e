//! Holds: who may do what: every call without a key, with a wrong one, and on somebody else's object.

use batchin_testkit::{Reply, TestServer, both};
use http::{Method, StatusCode};
use serde_json::json;

/// Calls that a key or a session may make.
const ACCOUNT_CALLS: &[(Method, &str)] = &[
    (Method::GET, "/v1/users/me"),
    (Method::PATCH, "/v1/users/me"),
    (Method::POST, "/v1/users/logout"),
    (Method::POST, "/v1/keys"),
    (Method::GET, "/v1/keys"),
    (Method::PATCH, "/v1/keys/0197f3a0-0000-7000-8000-000000000000"),
    (Method::DELETE, "/v1/keys/0197f3a0-0000-7000-8000-000000000000"),
    (Method::POST, "/v1/batches"),
    (Method::GET, "/v1/batches"),
    (Method::POST, "/v1/batches/estimate"),
    (Method::GET, "/v1/batches/0197f3a0-0000-7000-8000-000000000000"),
    (Method::POST, "/v1/batches/0197f3a0-0000-7000-8000-000000000000/cancel"),
    (Method::GET, "/v1/batches/0197f3a0-0000-7000-8000-000000000000/results"),
    (Method::GET, "/v1/usage/logs"),
    (Method::GET, "/v1/usage/summary"),
    (Method::GET, "/v1/usage/by-model"),
    (Method::GET, "/v1/usage/timeseries"),
    (Method::GET, "/v1/topup/history"),
    (Method::POST, "/v1/topup/stripe/checkout"),
    (Method::GET, "/v1/topup/auto"),
    (Method::PUT, "/v1/topup/auto"),
    (Method::POST, "/v1/topup/auto/setup"),
    (Method::GET, "/v1/topup/usdc/chains"),
    (Method::GET, "/v1/topup/usdc/chains/base/qr.svg"),
    (Method::GET, "/v1/topup/usdc/deposits"),
    (Method::POST, "/v1/topup/x402"),
    (Method::GET, "/v1/alerts"),
    (Method::POST, "/v1/audit"),
    (Method::GET, "/v1/audit"),
    (Method::PUT, "/v1/alerts"),
    (Method::POST, "/v1/alerts/email"),
    (Method::GET, "/v1/statements"),
    (Method::GET, "/v1/statements/2026-11"),
    (Method::POST, "/openai/v1/files"),
    (Method::GET, "/openai/v1/files"),
    (Method::GET, "/openai/v1/files/file-0197f3a0000070008000000000000000"),
    (Method::GET, "/openai/v1/files/file-0197f3a0000070008000000000000000/content"),
    (Method::DELETE, "/openai/v1/files/file-0197f3a0000070008000000000000000"),
    (Method::POST, "/v1/webhooks/secret"),
    (Method::GET, "/v1/webhooks/deliveries"),
    (Method::POST, "/v1/webhooks/deliveries/evt_00000000000000000000000000000000/replay"),
    (Method::POST, "/openai/v1/batches"),
    (Method::GET, "/openai/v1/batches"),
    (Method::GET, "/openai/v1/batches/batch_0197f3a0000070008000000000000000"),
    (Method::POST, "/openai/v1/batches/batch_0197f3a0000070008000000000000000/cancel"),
];
/// Calls that only a key may make.
const INFERENCE_CALLS: &[(Method, &str)] = &[
    (Method::POST, "/v1/chat/completions"),
    (Method::POST, "/v1/completions"),
    (Method::POST, "/v1/embeddings"),
    (Method::POST, "/v1/rerank"),
    (Method::POST, "/v2/rerank"),
    (Method::POST, "/openai/v1/chat/completions"),
    (Method::POST, "/openai/v1/completions"),
    (Method::POST, "/openai/v1/embeddings"),
];
/// Of the right form, and nobody's.
const NOBODYS: &[&str] = &[
    "batchin_api_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "batchin_session_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "batchin_api_short",
    "sk-something-else",
];

#[track_caller]
fn refused(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 401, "{what}: {}", reply.text());
    reply.error(StatusCode::UNAUTHORIZED, "unauthorized");
    assert_eq!(reply.header("www-authenticate"), "Bearer", "{what}");
}

both! {
    async fn no_call_answers_without_a_key_that_works(backend) {
        let server = TestServer::start().on(backend).await;
        for (method, path) in ACCOUNT_CALLS.iter().chain(INFERENCE_CALLS) {
            let bare = path.replace("/openai/v1", "").replace("/v1", "");
            let v1 = path.replace("/openai/v1", "/v1");
            for path in [*path, &v1, &bare] {
                refused(&server.anonymous(method.clone(), path).await, &format!("{method} {path}"));
            }
            for secret in NOBODYS {
                refused(&server.anonymous(method.clone(), path).key(secret).await, &format!("{method} {path} {secret}"));
            }
            let basic = server.anonymous(method.clone(), path).header("authorization", "Basic YTpi").await;
            refused(&basic, &format!("{method} {path} basic"));
        }
        assert_eq!(server.sim.calls(), 0);
        server.stop().await;
    }

    async fn a_key_answers_in_either_header(backend) {
        let server = TestServer::start().on(backend).await;
        for (name, value) in [
            ("authorization", format!("Bearer {}", server.owner.key)),
            ("authorization", format!("bearer  {}", server.owner.key)),
            ("x-api-key", server.owner.key.clone()),
        ] {
            let me = server.anonymous(Method::GET, "/v1/users/me").header(name, &value).await;
            assert_eq!(me.ok()["email"], "ada@example.com", "{name}: {value}");
        }
        let both = server.get("/v1/users/me").header("x-api-key", "nonsense").await;
        assert_eq!(both.status, 200, "the bearer token counts first");
        server.stop().await;
    }

    async fn a_session_manages_and_does_not_infer(backend) {
        let server = TestServer::start().on(backend).await;
        let login = json!({ "email": server.owner.email, "password": server.owner.password });
        let login = server.anonymous(Method::POST, "/v1/users/login").json(login).await.ok();
        let session = login["access_token"].as_str().unwrap();
        for path in [
            "/v1/users/me",
            "/v1/keys",
            "/v1/batches",
            "/v1/usage/summary",
            "/v1/topup/history",
            "/v1/topup/usdc/chains",
            "/v1/topup/usdc/deposits",
        ] {
            assert_eq!(server.anonymous(Method::GET, path).key(session).await.status, 200, "{path}");
        }
        for (method, path) in INFERENCE_CALLS {
            let reply = server.anonymous(method.clone(), path).key(session).await;
            refused(&reply, path);
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("POST /v1/keys"), "{message}");
        }
        let made = server.anonymous(Method::POST, "/v1/keys").key(session).json(json!({})).await.ok();
        let key = made["key"].as_str().unwrap();
        assert_eq!(server.anonymous(Method::GET, "/v1/users/me").key(key).await.status, 200);
        server.stop().await;
    }

    async fn somebody_elses_objects_are_not_there(backend) {
        let server = TestServer::start().on(backend).await;
        let stranger = server.account("eve@example.com").await;
        let task = json!({ "custom_id": "a", "model": "chat-model",
            "request_body": { "messages": [{ "role": "user", "content": "hi" }] } });
        let batch = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        let (key, batch) = (server.owner.key_id, batch["id"].as_str().unwrap().to_owned());
        let calls = [
            (Method::PATCH, format!("/v1/keys/{key}")),
            (Method::DELETE, format!("/v1/keys/{key}")),
            (Method::GET, format!("/v1/batches/{batch}")),
            (Method::POST, format!("/v1/batches/{batch}/cancel")),
            (Method::GET, format!("/v1/batches/{batch}/results")),
            (Method::GET, "/v1/batches/not-an-id".to_owned()),
            (Method::DELETE, "/v1/keys/not-an-id".to_owned()),
        ];
        for (method, path) in calls {
            let call = server.anonymous(method.clone(), &path).key(&stranger.key);
            let call = if method == Method::PATCH { call.json(json!({ "is_active": false })) } else { call };
            call.await.error(StatusCode::NOT_FOUND, "not_found");
        }
        for path in [
            "/v1/batches",
            "/v1/usage/logs",
            "/v1/usage/by-model",
            "/v1/topup/history",
            "/v1/topup/usdc/deposits",
        ] {
            let seen = server.anonymous(Method::GET, path).key(&stranger.key).await.ok();
            assert_eq!(seen, json!([]), "{path}");
        }
        assert_eq!(server.get("/v1/users/me").await.status, 200, "the key still works");
        let still = server.get(&format!("/v1/batches/{batch}")).await.ok();
        assert_eq!(still["status"], "pending");
        server.stop().await;
    }
}
