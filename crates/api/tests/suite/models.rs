//! Holds: the models as clients see them.

use batchin_testkit::{TestServer, both};
use http::{Method, StatusCode};
use serde_json::json;

both! {
    async fn models_are_listed_with_exact_prices(backend) {
        let server = TestServer::start().on(backend).await;
        let list = server.anonymous(Method::GET, "/v1/models").await;
        assert!(list.text().contains(r#""std_input":0.02,"std_output":0.08"#), "{}", list.text());
        let list = list.ok();
        assert_eq!(list["object"], "list");
        let mut chat = list["data"][0].clone();
        assert!(chat["created"].as_i64().unwrap() > 1_700_000_000);
        chat.as_object_mut().unwrap().remove("created");
        let expected = json!({
            "id": "chat-model", "object": "model", "type": "base", "owned_by": "batchin", "status": "always_on",
            "context_length": 8192, "max_output_tokens": 2048,
            "pricing": { "std_input": 0.02, "std_output": 0.08, "cached_input": 0.02, "cache_write": 0.02, "batch": {
                "high": { "input": 0.02, "output": 0.08, "cached_input": 0.02, "cache_write": 0.02 },
                "low": { "input": 0.01, "output": 0.04, "cached_input": 0.01, "cache_write": 0.01 },
                "fill": { "input": 0.005, "output": 0.02, "cached_input": 0.005, "cache_write": 0.005 } } },
            "capabilities": ["chat", "completions"], "aliases": ["gpt-x"], "license": "apache-2.0",
        });
        assert_eq!(chat, expected);
        assert_eq!(list["data"][2]["status"], "offline");
        server.stop().await;
    }

    async fn a_model_is_found_by_id_alias_and_with_slashes(backend) {
        let server = TestServer::start().on(backend).await;
        for (path, id) in [
            ("/v1/models/chat-model", "chat-model"),
            ("/v1/models/gpt-x", "chat-model"),
            ("/models/org/offline-model", "org/offline-model"),
            ("/openai/v1/models/org/offline-model", "org/offline-model"),
        ] {
            assert_eq!(server.anonymous(Method::GET, path).await.ok()["id"], id, "{path}");
        }
        let missing = server.anonymous(Method::GET, "/v1/models/org/none").await;
        missing.error(StatusCode::NOT_FOUND, "model_not_found");
        server.stop().await;
    }

    async fn the_openai_flavour_has_openais_members_alone(backend) {
        let server = TestServer::start().on(backend).await;
        let list = server.anonymous(Method::GET, "/openai/v1/models").await.ok();
        let mut names: Vec<_> = list["data"][0].as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["created", "id", "object", "owned_by"]);
        server.stop().await;
    }

    async fn a_server_that_drains_still_answers_and_says_so_to_balancers(backend) {
        let server = TestServer::start().on(backend).await;
        server.stopping.cancel();
        server.anonymous(Method::GET, "/v1/models").await.ok();
        server.chat("chat-model").max_tokens(1).await.ok();
        let ready = server.anonymous(Method::GET, "/readyz").await;
        assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("draining")));
        assert_eq!(server.anonymous(Method::GET, "/healthz").await.status, 200);
        server.stop().await;
    }
}
