//! Holds: clients that leave at any moment of their request.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use axum::body::{Body, to_bytes};
use batchin_testkit::{Account, Kind, TestServer, both, usd};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

/// More than any request takes.
const MOST_TURNS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls a future so many times and drops it; `None` where it had not ended by then.
async fn leaving_after<F: Future>(turns: usize, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut left = turns;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Sends a request under one Idempotency-Key, and reads its answer to the end.
async fn ask(server: &TestServer, account: &Account, path: &str, body: &Value) -> (StatusCode, String) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("authorization", format!("Bearer {}", account.key))
        .header("content-type", "application/json")
        .header("idempotency-key", "once")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = server.router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Leaves after one turn, after two, and so on until the answer is there before the client leaves; each time with an
/// account of its own, which has nothing leased yet. Then the client tries again, with what `check` makes of its answer.
async fn leave_everywhere(
    server: &TestServer,
    path: &str,
    body: &Value,
    check: impl AsyncFn(&Account, StatusCode, String),
) {
    for turns in 1..MOST_TURNS {
        let account = server.account(&format!("leaver-{turns}@example.com")).await;
        server.grant(&account, usd("1")).await;
        let answered = leaving_after(turns, ask(server, &account, path, body)).await;
        let again = tokio::time::timeout(PATIENCE, ask(server, &account, path, body));
        let (status, text) = again.await.unwrap_or_else(|_| panic!("its key is stuck after {turns} turns"));
        check(&account, status, text).await;
        if answered.is_some() {
            assert!(turns > 2, "it waits for something");
            return;
        }
    }
    panic!("it never ends");
}

async fn until_nothing_is_leased(server: &TestServer) {
    let returned = async {
        while server.store.check().await.unwrap().leased_nanos != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, returned).await.expect("what was leased goes back");
}

both! {
    async fn an_answer_is_charged_once_and_nothing_is_stuck(backend) {
        let server = TestServer::start().on(backend).await;
        let chat = json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 5 });
        leave_everywhere(&server, "/v1/chat/completions", &chat, async |account, status, text| {
            assert_eq!(status, StatusCode::OK, "{text}");
            let usage = serde_json::from_str::<Value>(&text).unwrap()["usage"].clone();
            let spent = usd("1").nanos() - server.store.accounts().user(account.id).await.unwrap().unwrap().balance.nanos();
            assert_eq!(spent, crate::inference::cost(&usage));
        })
        .await;
        until_nothing_is_leased(&server).await;
        server.stop().await;
    }

    async fn a_stream_is_charged_for_what_it_gave_and_nothing_is_stuck(backend) {
        let server = TestServer::start().on(backend).await;
        let messages = [json!({ "role": "user", "content": "hello" })];
        let chat = json!({ "model": "chat-model", "messages": messages, "max_tokens": 5, "stream": true });
        leave_everywhere(&server, "/v1/chat/completions", &chat, async |_, status, text| match status {
            StatusCode::OK => assert!(text.ends_with("data: [DONE]\n\n"), "{text}"),
            // It was left in the middle, and charged so far.
            _ => assert!(status == StatusCode::CONFLICT && text.contains("cannot be given again"), "{status} {text}"),
        })
        .await;
        until_nothing_is_leased(&server).await;
        server.stop().await;
    }

    async fn a_picture_that_was_charged_for_stays(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).await;
        let picture = json!({ "model": "draw-model", "prompt": "A kite.", "size": "64x64" });
        leave_everywhere(&server, "/v1/images/generations", &picture, async |account, status, text| {
            assert_eq!(status, StatusCode::OK, "{text}");
            let listed = async || {
                let files = server.anonymous(Method::GET, "/v1/files").key(&account.key).await.ok();
                files["data"].as_array().unwrap().len()
            };
            // What was made for nobody goes.
            let one_is_left = async {
                while listed().await != 1 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, one_is_left).await.unwrap_or_else(|_| panic!("{text}"));
            let answer: Value = serde_json::from_str(&text).unwrap();
            let url = answer["data"][0]["url"].as_str().unwrap();
            let path = &url[url.find("/v1/").unwrap()..];
            assert_eq!(server.anonymous(Method::GET, path).await.status, StatusCode::OK, "{text}");
            let spent = usd("1").nanos() - server.store.accounts().user(account.id).await.unwrap().unwrap().balance.nanos();
            assert_eq!(spent, 11_719, "once");
        })
        .await;
        until_nothing_is_leased(&server).await;
        server.stop().await;
    }

    async fn a_batch_is_made_once(backend) {
        let server = TestServer::start().on(backend).await;
        let messages = json!([{ "role": "user", "content": "hello" }]);
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": { "messages": messages } });
        let batch = json!({ "tasks": [task], "priority": "low" });
        leave_everywhere(&server, "/v1/batches", &batch, async |account, status, text| {
            assert!(status.is_success(), "{status} {text}");
            let listed = server.anonymous(Method::GET, "/v1/batches").key(&account.key).await.ok();
            assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        })
        .await;
        server.stop().await;
    }
}
