//! Holds: the one character that PostgreSQL stores in no text, wherever a client can send one.

use batchin_testkit::{TestServer, both};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn task(custom_id: &str) -> Value {
    json!({ "custom_id": custom_id, "model": "chat-model", "request_body": { "messages": [{ "role": "user", "content": "a\0b" }] } })
}

both! {
    async fn it_is_refused_by_the_name_of_its_field(backend) {
        let server = TestServer::start().on(backend).with_local_webhooks().await;
        let key = format!("/v1/keys/{}", server.owner.key_id);
        let batch = |change: fn(&mut Value)| {
            let mut body = json!({ "tasks": [task("a")] });
            change(&mut body);
            body
        };
        let file_batch = |name: &str, value: Value| {
            let mut body = json!({ "input_file_id": "file-0197f3a0000070008000000000000000", "completion_window": "24h" });
            body[name] = value;
            body
        };
        let sent = [
            (Method::POST, "/v1/users", json!({ "email": "a@example.com", "name": "a\0", "password": "long enough 1" }), "name"),
            (Method::POST, "/v1/users", json!({ "email": "a\0@example.com", "name": "a", "password": "long enough 1" }), "email"),
            (Method::POST, "/v1/users/login", json!({ "email": "a\0@example.com", "password": "long enough 1" }), "email"),
            (Method::POST, "/v1/keys", json!({ "name": "a\0b" }), "name"),
            (Method::PATCH, key.as_str(), json!({ "name": "a\0b" }), "name"),
            (Method::POST, "/v1/batches", json!({ "tasks": [task("a\0b")] }), "tasks[0].custom_id"),
            (Method::POST, "/v1/batches", batch(|body| body["metadata"] = json!({ "k": "\0" })), "metadata"),
            (Method::POST, "/v1/batches", batch(|body| body["metadata"] = json!({ "\0": "v" })), "metadata"),
            (Method::POST, "/v1/batches", batch(|body| body["webhook_url"] = json!("http://127.0.0.1/\0")), "webhook_url"),
            (Method::POST, "/openai/v1/batches", file_batch("metadata", json!({ "k": "\0" })), "metadata"),
            (Method::POST, "/openai/v1/batches", file_batch("webhook_url", json!("http://127.0.0.1/\0")), "webhook_url"),
            (Method::POST, "/openai/v1/batches", file_batch("endpoint", json!("\0")), "endpoint"),
            (Method::POST, "/v1/batches/estimate", json!({ "tasks": [task("\0")] }), "tasks[0].custom_id"),
        ];
        for (method, path, body, param) in sent {
            let error = server.call(method, path).json(body.clone()).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param, "{body}");
        }
        for path in ["/v1/usage/logs", "/v1/usage/summary", "/v1/usage/by-model", "/v1/usage/timeseries"] {
            let error = server.get(&format!("{path}?model=%00")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], "model", "{path}");
        }
        for (path, param) in [
            ("/v1/batches?after=%00", "after"),
            ("/openai/v1/batches?after=%00", "after"),
            ("/openai/v1/files?purpose=%00", "purpose"),
            ("/v1/webhooks/deliveries?status=%00", "status"),
        ] {
            let error = server.get(path).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param, "{path}");
        }
        server.get("/v1/models/%00").await.error(StatusCode::NOT_FOUND, "model_not_found");
        server.stop().await;
    }

    async fn a_file_with_it_is_refused_and_keeps_nobody_up(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let line = |id: &str| {
            let body = json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "hi" }] });
            json!({ "custom_id": id, "method": "POST", "url": CHAT, "body": body })
        };
        let upload = async |lines: String| {
            let body = format!(
                "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: \
                 form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{lines}\r\n--b--\r\n"
            );
            let call = server.call(Method::POST, "/openai/v1/files");
            let file = call.header("content-type", "multipart/form-data; boundary=b").body(body).await.ok();
            let order = json!({ "input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h" });
            server.post("/openai/v1/batches", order).await.ok()["id"].as_str().unwrap().to_owned()
        };
        let ended = async |id: &str| loop {
            let batch = server.get(&format!("/openai/v1/batches/{id}")).await.ok();
            if ["failed", "completed"].contains(&batch["status"].as_str().unwrap()) {
                return batch;
            }
            tokio::task::yield_now().await;
        };
        let mut poisoned = Vec::new();
        for _ in 0..4 {
            poisoned.push(upload(format!("{}\n", line("a\0b"))).await);
        }
        let good = upload(format!("{}\n", line("a"))).await;
        assert_eq!(ended(&good).await["status"], "completed");
        for id in &poisoned {
            let failed = ended(id).await;
            assert_eq!((&failed["status"], &failed["errors"]["data"][0]["param"]), (&json!("failed"), &json!("custom_id")));
        }
        // Where it is only passed on, it may stand.
        server.post(CHAT, json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "a\0b" }] })).await.ok();
        server.stop().await;
    }

    async fn inner_names_never_show(backend) {
        let server = TestServer::start().on(backend).await;
        for body in ["[]", "7", "\"x\"", "null", "{\"tasks\": [[]]}", "{\"tasks\": [7]}", "{\"tasks\": 7}", "[[], null, null, null, null, null]"] {
            for path in ["/v1/batches", "/v1/batches/estimate"] {
                let reply = server.call(Method::POST, path).body(body).await;
                let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
                let message = error["message"].as_str().unwrap();
                assert!(!message.contains("struct") && !message.contains("Raw") && !message.contains(" at line "), "{body}: {message}");
            }
        }
        server.stop().await;
    }
}
