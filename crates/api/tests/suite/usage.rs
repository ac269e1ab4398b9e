//! Holds: what was used, as its owner sees it.

use batchin_testkit::{TestServer, both};
use http::StatusCode;
use serde_json::{Value, json};

both! {
    async fn usage_is_listed_summed_and_plotted(backend) {
        let server = TestServer::start().on(backend).await;
        for tokens in [1, 2, 3] {
            server.chat("chat-model").max_tokens(tokens).await.ok();
        }
        let embed = server.post("/v1/embeddings", json!({ "model": "embed-model", "input": "hello" })).await;
        embed.ok();

        let logs = server.get("/v1/usage/logs").await.ok();
        let rows = logs.as_array().unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0]["model"], "embed-model", "newest first");
        let row = &rows[1];
        assert_eq!((&row["model"], &row["output_tokens"], &row["status"]), (&json!("chat-model"), &json!(3), &json!("completed")));
        assert_eq!((&row["endpoint"], &row["class"]), (&json!("/v1/chat/completions"), &json!("interactive")));
        assert_eq!((&row["key_id"], &row["batch_id"]), (&json!(server.owner.key_id.to_string()), &Value::Null));
        assert_eq!((&row["estimated"], &row["cached_tokens"]), (&json!(false), &json!(0)));
        assert!(row["latency_ms"].as_f64().unwrap() > 0.0);

        let summary = server.get("/v1/usage/summary").await.ok();
        assert_eq!((&summary["total_requests"], &summary["total_output_tokens"]), (&json!(4), &json!(6)));
        let spent = batchin_testkit::usd("1").nanos() - server.balance().await.nanos();
        let text = batchin_domain::Balance::from_nanos(spent).to_cents_text();
        let shown = server.get("/v1/usage/summary").await.text();
        assert!(shown.contains(&format!("\"total_cost_cents\":{text}")), "{shown} against {text}");

        let models = server.get("/v1/usage/by-model").await.ok();
        let named: Vec<_> = models.as_array().unwrap().iter().map(|row| &row["model"]).collect();
        assert_eq!(named, ["chat-model", "embed-model"], "the costliest first");
        assert_eq!(models[0]["total_requests"], 3);

        let series = server.get("/v1/usage/timeseries?interval=day").await.ok();
        assert_eq!(series["interval"], "day");
        let total: u64 = series["data"].as_array().unwrap().iter().map(|p| p["total_requests"].as_u64().unwrap()).sum();
        assert_eq!(total, 4);
        assert!(series["data"][0]["start"].as_str().unwrap().ends_with("T00:00:00Z"));
        server.stop().await;
    }

    async fn filters_and_pages_narrow_it(backend) {
        let server = TestServer::start().on(backend).await;
        for _ in 0..3 {
            server.chat("chat-model").max_tokens(1).await.ok();
        }
        let key = server.owner.key_id;
        for (query, rows) in [
            ("limit=2".to_owned(), 2),
            ("limit=2&offset=2".to_owned(), 1),
            ("model=chat-model".to_owned(), 3),
            ("model=other".to_owned(), 0),
            (format!("key_id={key}"), 3),
            ("key_id=0197f3a0-0000-7000-8000-000000000000".to_owned(), 0),
            ("from=2100-01-01T00:00:00Z".to_owned(), 0),
            ("to=2100-01-01T00:00:00%2B02:00".to_owned(), 3),
            ("to=2000-01-01T00:00:00Z".to_owned(), 0),
        ] {
            let logs = server.get(&format!("/v1/usage/logs?{query}")).await.ok();
            assert_eq!(logs.as_array().unwrap().len(), rows, "{query}");
        }
        server.stop().await;
    }

    async fn every_wrong_parameter_is_named(backend) {
        let server = TestServer::start().on(backend).await;
        for (path, param) in [
            ("/v1/usage/logs?limit=0", "limit"),
            ("/v1/usage/logs?limit=501", "limit"),
            ("/v1/usage/logs?limit=ten", "limit"),
            ("/v1/usage/logs?limit=5&limit=6", "limit"),
            ("/v1/usage/logs?offset=-1", "offset"),
            ("/v1/usage/logs?ofset=1", "ofset"),
            ("/v1/usage/summary?from=yesterday", "from"),
            ("/v1/usage/by-model?to=1", "to"),
            ("/v1/usage/timeseries?interval=week", "interval"),
            ("/v1/usage/summary?key_id=5", "key_id"),
            ("/v1/topup/history?limit=501", "limit"),
            ("/v1/batches?limit=0", "limit"),
        ] {
            let reply = server.get(path).await;
            assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], param, "{path}");
        }
        server.stop().await;
    }

    async fn a_key_whose_budget_is_used_up_is_told_so(backend) {
        let server = TestServer::start().on(backend).with_budget("0").await;
        server.get("/v1/usage/summary").await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        let chat = server.chat("chat-model").max_tokens(5).await;
        chat.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert_eq!(chat.header("x-should-retry"), "false");
        assert_eq!(server.get("/v1/usage/logs").await.ok(), json!([]));
        server.stop().await;
    }

    async fn credits_are_listed_newest_first(backend) {
        let server = TestServer::start().on(backend).await;
        server.grant(&server.owner, batchin_testkit::usd("2.50")).await;
        let history = server.get("/v1/topup/history").await.ok();
        let amounts: Vec<_> = history.as_array().unwrap().iter().map(|row| row["amount_cents"].clone()).collect();
        assert_eq!(amounts, [json!(250), json!(100)]);
        assert_eq!((&history[0]["source"], &history[0]["status"]), (&json!("grant"), &json!("completed")));
        assert!(history[0].as_object().unwrap().contains_key("reference_id"));
        assert_eq!(server.get("/v1/topup/history?limit=1").await.ok().as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn lists_go_on_after_a_row_whatever_comes_in(backend) {
        let server = TestServer::start().on(backend).await;
        for _ in 0..5 {
            server.chat("chat-model").max_tokens(1).await.ok();
            let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": { "messages": [{ "role": "user", "content": "hi" }] } });
            server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        }
        for path in ["/v1/usage/logs", "/v1/batches"] {
            let whole = server.get(path).await.ok();
            let ids = |rows: &Value| rows.as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
            let (whole, mut seen) = (ids(&whole), Vec::new());
            let mut page = ids(&server.get(&format!("{path}?limit=2")).await.ok());
            while let Some(last) = page.last().cloned() {
                seen.append(&mut page);
                server.chat("chat-model").max_tokens(1).await.ok();
                let task = json!({ "custom_id": "b", "model": "chat-model", "request_body": { "messages": [{ "role": "user", "content": "hi" }] } });
                server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
                page = ids(&server.get(&format!("{path}?limit=2&after={}", last.as_str().unwrap())).await.ok());
            }
            assert_eq!(seen, whole, "{path}");
            let nowhere = server.get(&format!("{path}?after=0197f3a0-0000-7000-8000-000000000000")).await;
            assert_eq!(nowhere.error(StatusCode::NOT_FOUND, "not_found")["param"], "after");
            for (query, param) in [
                ("after=x".to_owned(), "after"),
                (format!("after={}&offset=1", whole[0].as_str().unwrap()), "offset"),
            ] {
                let error = server.get(&format!("{path}?{query}")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
                assert_eq!(error["param"], param, "{query}");
            }
        }
        server.stop().await;
    }
}
