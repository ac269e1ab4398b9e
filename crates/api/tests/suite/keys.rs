//! Holds: API keys as their owner manages them.

use std::time::Duration;

use batchin_testkit::{TestServer, both};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

both! {
    async fn a_key_is_made_shown_once_changed_and_deleted(backend) {
        let server = TestServer::start().on(backend).await;
        let asked = json!({ "name": "ci", "rate_limit_rpm": 30, "monthly_budget_cents": 12.5 });
        let made = server.post("/v1/keys", asked).await.ok();
        let key = made["key"].as_str().unwrap().to_owned();
        assert!(key.starts_with("batchin_api_") && key.len() == 55, "{key}");
        assert_eq!((&made["key_prefix"], &made["name"]), (&json!("batchin_api"), &json!("ci")));
        assert_eq!((&made["rate_limit_rpm"], &made["monthly_budget_cents"]), (&json!(30), &json!(12.5)));
        assert!(made["created_at"].as_str().unwrap().ends_with('Z'));

        let list = server.get("/v1/keys").await;
        assert!(!list.text().contains(&key), "a secret is shown once");
        let rows = list.ok();
        assert_eq!(rows.as_array().unwrap().len(), 2);
        let row = &rows[0];
        assert_eq!((&row["id"], &row["is_active"], &row["spent_this_month_cents"]), (&made["id"], &json!(true), &json!(0)));
        assert_eq!(row["last_four"], key[key.len() - 4..]);

        let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
        let change = |body: Value| server.call(Method::PATCH, &path).json(body);
        let changed = change(json!({ "name": null, "rate_limit_rpm": 7, "monthly_budget_cents": null })).await.ok();
        assert_eq!((&changed["name"], &changed["monthly_budget_cents"]), (&Value::Null, &Value::Null));
        assert_eq!(changed["rate_limit_rpm"], 7);
        assert_eq!(change(json!({ "rate_limit_rpm": null })).await.ok()["rate_limit_rpm"], 600);
        assert_eq!(change(json!({ "is_active": false })).await.ok()["is_active"], false);

        assert_eq!(server.call(Method::DELETE, &path).await.status, 204);
        server.call(Method::DELETE, &path).await.error(StatusCode::NOT_FOUND, "not_found");
        change(json!({ "name": "x" })).await.error(StatusCode::NOT_FOUND, "not_found");
        assert_eq!(server.get("/v1/keys").await.ok().as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn a_key_without_wishes_has_the_defaults(backend) {
        let server = TestServer::start().on(backend).await;
        for call in [server.post("/v1/keys", json!({})), server.call(Method::POST, "/v1/keys")] {
            let made = call.await.ok();
            assert_eq!((&made["rate_limit_rpm"], &made["monthly_budget_cents"]), (&json!(600), &Value::Null));
            assert_eq!(made["name"], Value::Null);
        }
        server.stop().await;
    }

    async fn cents_are_exact(backend) {
        let server = TestServer::start().on(backend).await;
        for text in ["0", "0.0000001", "0.1", "922337203685.4775807", "5e2"] {
            let body = format!("{{\"monthly_budget_cents\": {text}}}");
            let made = server.call(Method::POST, "/v1/keys").body(body).await;
            assert_eq!(made.status, 200, "{text}: {}", made.text());
            let shown = if text == "5e2" { "500" } else { text };
            assert!(made.text().contains(&format!("\"monthly_budget_cents\":{shown},")), "{}", made.text());
        }
        server.stop().await;
    }

    async fn every_wrong_field_is_named(backend) {
        let server = TestServer::start().on(backend).await;
        let path = format!("/v1/keys/{}", server.owner.key_id);
        let cases = [
            (r#"{"name": 5}"#, "name"),
            (r#"{"rate_limit_rpm": 0}"#, "rate_limit_rpm"),
            (r#"{"rate_limit_rpm": -1}"#, "rate_limit_rpm"),
            (r#"{"rate_limit_rpm": 1.5}"#, "rate_limit_rpm"),
            (r#"{"rate_limit_rpm": "9"}"#, "rate_limit_rpm"),
            (r#"{"rate_limit_rpm": 99999999999999999999}"#, "rate_limit_rpm"),
            (r#"{"monthly_budget_cents": -1}"#, "monthly_budget_cents"),
            (r#"{"monthly_budget_cents": 0.00000001}"#, "monthly_budget_cents"),
            (r#"{"monthly_budget_cents": 1e300}"#, "monthly_budget_cents"),
            (r#"{"monthly_budget_cents": true}"#, "monthly_budget_cents"),
            (r#"{"rate_limit_rpn": 5}"#, "rate_limit_rpn"),
        ];
        for (body, param) in cases {
            for (method, path) in [(Method::POST, "/v1/keys"), (Method::PATCH, &path)] {
                let reply = server.call(method, path).body(body).await;
                assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], param, "{body}");
            }
        }
        let broken = server.call(Method::POST, "/v1/keys").body("{\n\"name\": }").await;
        let message = broken.error(StatusCode::BAD_REQUEST, "invalid_request")["message"].clone();
        assert_eq!(message, "The body is not valid JSON at line 2, column 9.");
        assert_eq!(server.get("/v1/keys").await.ok().as_array().unwrap().len(), 1, "nothing was made");
        server.stop().await;
    }

    async fn a_deleted_key_stops_within_a_second(backend) {
        let server = TestServer::start().on(backend).await;
        let made = server.post("/v1/keys", json!({})).await.ok();
        let key = made["key"].as_str().unwrap();
        let chat = || {
            let body = json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 1 });
            server.anonymous(Method::POST, "/v1/chat/completions").key(key).json(body)
        };
        chat().await.ok();
        assert_eq!(server.call(Method::DELETE, &format!("/v1/keys/{}", made["id"].as_str().unwrap())).await.status, 204);
        let began = Instant::now();
        loop {
            let reply = chat().await;
            if reply.status == 401 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(1), "still {} after {:?}", reply.status, began.elapsed());
        }
        server.stop().await;
    }

    async fn the_same_request_makes_one_key(backend) {
        let server = TestServer::start().on(backend).await;
        let make = |name: &str| server.post("/v1/keys", json!({ "name": name })).header("idempotency-key", "k1");
        make("a").await.ok();
        let again = make("a").await;
        again.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(again.header("x-should-retry"), "false");
        make("b").await.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(server.get("/v1/keys").await.ok().as_array().unwrap().len(), 2);
        let bad = server.post("/v1/keys", json!({})).header("idempotency-key", "has a blank").await;
        assert_eq!(bad.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "Idempotency-Key");
        // What was refused may be tried again under its key.
        let refused = || server.post("/v1/keys", json!({ "rate_limit_rpm": 0 })).header("idempotency-key", "k2");
        assert_eq!((refused().await.status, refused().await.status), (400, 400));
        server.stop().await;
    }

    async fn a_key_with_a_budget_changes_nothing_that_binds_it(backend) {
        let server = TestServer::start().on(backend).await;
        let bound = server.post("/v1/keys", json!({ "monthly_budget_cents": 0.001 })).await.ok();
        let other = server.post("/v1/keys", json!({})).await.ok();
        let [own, others] = [&bound, &other].map(|key| format!("/v1/keys/{}", key["id"].as_str().unwrap()));
        let bound = bound["key"].as_str().unwrap();
        let lifted = json!({ "monthly_budget_cents": null });
        let calls = [
            (Method::PATCH, own.clone(), lifted.clone()),
            (Method::PATCH, own.clone(), json!({ "monthly_budget_cents": 100 })),
            (Method::PATCH, own.clone(), json!({ "rate_limit_rpm": 1_000 })),
            (Method::PATCH, others.clone(), json!({ "is_active": false })),
            (Method::PATCH, own.replace("/v1", ""), lifted.clone()),
            (Method::POST, "/v1/keys".to_owned(), json!({})),
            (Method::POST, "/keys".to_owned(), json!({ "monthly_budget_cents": 0.0001 })),
            (Method::DELETE, others.clone(), json!({})),
            (Method::DELETE, own.clone(), json!({})),
            (Method::POST, "/v1/webhooks/secret".to_owned(), json!({})),
            (Method::PATCH, "/v1/users/me".to_owned(), json!({ "name": "Eve" })),
            (Method::PATCH, "/v1/users/me".to_owned(),
                json!({ "password": "another long one", "old_password": server.owner.password })),
        ];
        for (method, path, body) in calls {
            let reply = server.anonymous(method.clone(), &path).key(bound).json(body).await;
            let message = reply.error(StatusCode::FORBIDDEN, "forbidden")["message"].clone();
            let message = message.as_str().unwrap();
            assert!(message.contains("monthly budget") && message.contains("POST /v1/users/login"), "{message}");
        }
        // It sees its account, and the rest of the budget.
        for path in ["/v1/keys", "/v1/users/me", "/v1/usage/logs", "/v1/batches"] {
            assert_eq!(server.anonymous(Method::GET, path).key(bound).await.status, 200, "{path}");
        }
        assert_eq!(server.get("/v1/keys").await.ok().as_array().unwrap().len(), 3, "nothing was made or deleted");

        let login = json!({ "email": server.owner.email, "password": server.owner.password });
        let session = server.anonymous(Method::POST, "/v1/users/login").json(login).await.ok();
        let session = session["access_token"].as_str().unwrap();
        let changed = server.anonymous(Method::PATCH, &own).key(session).json(json!({ "rate_limit_rpm": 9 })).await;
        assert_eq!(changed.ok()["rate_limit_rpm"], 9);
        // What lifts it is a key without one; what binds it does so at once.
        let other = other["key"].as_str().unwrap();
        let change = |body: Value| server.anonymous(Method::PATCH, &own).key(other).json(body);
        assert_eq!(change(lifted.clone()).await.ok()["monthly_budget_cents"], Value::Null);
        assert_eq!(server.anonymous(Method::POST, "/v1/keys").key(bound).json(json!({})).await.status, 200);
        change(json!({ "monthly_budget_cents": 0 })).await.ok();
        let again = server.anonymous(Method::PATCH, &own).key(bound).json(lifted).await;
        again.error(StatusCode::FORBIDDEN, "forbidden");
        // So does its end.
        assert_eq!(server.call(Method::DELETE, &others).await.status, 204);
        let gone = server.anonymous(Method::POST, "/v1/keys").key(other).json(json!({})).await;
        gone.error(StatusCode::UNAUTHORIZED, "unauthorized");
        server.stop().await;
    }
}
