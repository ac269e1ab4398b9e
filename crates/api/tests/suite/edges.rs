//! Holds: what every answer has in common, and the pages beside the API.

use batchin_testkit::{TestServer, both};
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};

both! {
    async fn unknown_paths_and_methods_have_the_one_error_shape(backend) {
        let server = TestServer::start().on(backend).await;
        for path in ["/", "/v1", "/v1/nothing", "/v2/models", "/v1/users/", "/v1/chat/completions/", "/%ff"] {
            server.get(path).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        for (method, path, allow) in [
            (Method::GET, "/v1/chat/completions", "POST"),
            (Method::DELETE, "/openai/v1/embeddings", "POST"),
            (Method::PUT, "/completions", "POST"),
            (Method::PUT, "/v1/keys", "GET,HEAD,POST"),
            (Method::DELETE, "/models", "GET,HEAD"),
            (Method::POST, "/healthz", "GET,HEAD"),
        ] {
            let reply = server.call(method, path).await;
            reply.error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
            let mut named: Vec<_> = reply.header("allow").split(',').collect();
            named.sort_unstable();
            assert_eq!(named.join(","), allow, "{path}");
        }
        for path in ["/v1/keys", "/v1/embeddings"] {
            let options = server.anonymous(Method::OPTIONS, path).await;
            assert_eq!((options.status, options.body.len()), (204, 0));
            assert!(options.header("allow").contains("POST"));
        }
        let head = server.anonymous(Method::HEAD, "/v1/models").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        server.stop().await;
    }

    async fn every_answer_names_its_request(backend) {
        let server = TestServer::start().on(backend).await;
        let own = server.get("/v1/users/me").await.header("x-request-id").to_owned();
        assert_eq!(uuid::Uuid::parse_str(&own).unwrap().get_version_num(), 7);
        let long = "x".repeat(129);
        for (sent, kept) in [("client-7/a:b", true), (long.as_str(), false), ("has a blank", false)] {
            for path in ["/v1/users/me", "/v1/nothing", "/healthz"] {
                let reply = server.get(path).header("x-request-id", sent).await;
                assert_eq!(reply.header("x-request-id") == sent, kept, "{sent} {path}");
                assert_eq!(reply.header("x-batchin-request-id").is_empty(), !kept);
            }
        }
        // A client that names every request the same is still charged for each of them.
        for _ in 0..2 {
            let reply = server.chat("chat-model").max_tokens(1).stream().header("x-request-id", &own).await;
            assert_eq!(reply.header("x-request-id"), own);
        }
        assert_eq!(server.get("/v1/usage/summary").await.ok()["total_requests"], 2);
        let logged = server.get("/v1/usage/logs").await.ok();
        assert!(logged.as_array().unwrap().iter().all(|row| row["id"] != own.as_str()));
        server.stop().await;
    }

    async fn health_and_readiness_tell_of_this_server(backend) {
        let server = TestServer::start().on(backend).await;
        assert_eq!(server.anonymous(Method::GET, "/healthz").await.ok(), json!({ "status": "ok" }));
        let ready = server.anonymous(Method::GET, "/readyz").await.ok();
        assert_eq!(ready, json!({ "status": "ready", "database": true, "lease": true, "models_up": 7, "models": 8 }));
        server.stop().await;
    }

    async fn metrics_answer_to_whom_the_operator_says(backend) {
        let open = TestServer::start().on(backend).await;
        let page = open.anonymous(Method::GET, "/metrics").await;
        assert!(page.status == 200 && page.header("content-type").starts_with("text/plain; version=0.0.4"));
        open.stop().await;
        let token = SecretString::from("scrape");
        let closed = TestServer::start().on(backend).with_settings(|settings| settings.metrics_token = Some(token)).await;
        closed.get("/metrics").await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        assert_eq!(closed.anonymous(Method::GET, "/metrics").key("scrape").await.status, 200);
        closed.stop().await;
        let off = TestServer::start().on(backend).with_settings(|settings| settings.metrics_enabled = false).await;
        off.get("/metrics").await.error(StatusCode::NOT_FOUND, "not_found");
        off.stop().await;
    }

    async fn a_node_that_only_works_tells_of_its_health_alone(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| settings.serves = false).await;
        assert_eq!(server.anonymous(Method::GET, "/readyz").await.status, 200);
        server.chat("chat-model").await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }
}

#[test]
fn the_description_has_every_documented_path() {
    let text = batchin_api::openapi_json();
    let description: Value = serde_json::from_str(text).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, methods) in [
        ("/v1/users", vec!["post"]),
        ("/v1/users/login", vec!["post"]),
        ("/v1/users/logout", vec!["post"]),
        ("/v1/users/me", vec!["get", "patch"]),
        ("/v1/users/by-email", vec!["get"]),
        ("/v1/keys", vec!["get", "post"]),
        ("/v1/keys/{id}", vec!["delete", "patch"]),
        ("/v1/chat/completions", vec!["post"]),
        ("/v1/completions", vec!["post"]),
        ("/v1/embeddings", vec!["post"]),
        ("/v1/rerank", vec!["post"]),
        ("/v2/rerank", vec!["post"]),
        ("/v1/models", vec!["get"]),
        ("/v1/models/{id}", vec!["get"]),
        ("/v1/batches", vec!["get", "post"]),
        ("/v1/batches/{id}", vec!["get"]),
        ("/v1/batches/{id}/cancel", vec!["post"]),
        ("/v1/batches/{id}/results", vec!["get"]),
        ("/v1/usage/logs", vec!["get"]),
        ("/v1/usage/summary", vec!["get"]),
        ("/v1/usage/by-model", vec!["get"]),
        ("/v1/usage/timeseries", vec!["get"]),
        ("/v1/topup/history", vec!["get"]),
        ("/v1/admin/chains", vec!["get"]),
        ("/v1/topup/stripe/checkout", vec!["post"]),
        ("/v1/topup/auto", vec!["get", "put"]),
        ("/v1/topup/auto/setup", vec!["post"]),
        ("/v1/topup/usdc/chains", vec!["get"]),
        ("/v1/topup/usdc/chains/{chain}/qr.svg", vec!["get"]),
        ("/v1/topup/usdc/deposits", vec!["get"]),
        ("/v1/webhooks/stripe", vec!["post"]),
        ("/healthz", vec!["get"]),
        ("/readyz", vec!["get"]),
        ("/metrics", vec!["get"]),
        ("/openapi.json", vec!["get"]),
    ] {
        let item = description["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is not described"));
        for method in methods {
            assert!(
                item[method]["responses"]["200"].is_object() || item[method]["responses"]["204"].is_object(),
                "{path}"
            );
        }
    }
    let resolves = |reference: &str| description.pointer(reference.trim_start_matches('#')).is_some();
    for part in text.split("\"$ref\": \"").skip(1) {
        let reference = part.split('"').next().unwrap();
        assert!(resolves(reference), "{reference} leads nowhere");
    }
}
