//! Holds: chat, completions and embeddings through the whole pipeline.

use std::time::Duration;

use batchin_domain::{Counts, Rate, Tariff};
use batchin_testkit::{
    Reply, TestServer, both,
    sim::{Answer, Behaviour, Refusal},
    usd,
};
use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// What `chat-model` charges for this usage.
pub(crate) fn cost(usage: &Value) -> i64 {
    let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
    let count = |name: &str| usage[name].as_u64().unwrap();
    let counts = Counts::of_tokens(count("prompt_tokens"), count("completion_tokens"));
    Tariff::of_tokens(rate("0.02"), rate("0.08")).cost(counts).nanos()
}

/// The JSON of each event but the last, which must be `[DONE]`.
#[track_caller]
pub(crate) fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

both! {
    async fn a_chat_is_answered_and_charged_to_the_nano_dollar(backend) {
        let server = TestServer::start().on(backend).await;
        let reply = server.chat("chat-model").max_tokens(20).await;
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-ratelimit-limit-requests", "1000000"),
            ("x-ratelimit-remaining-requests", "999999"),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
        let reset = reply.header("x-ratelimit-reset-requests");
        assert!(reset.ends_with('s') && reset.trim_end_matches('s').parse::<f64>().unwrap() <= 60.0, "{reset}");
        let answer = reply.ok();
        assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("chat-model")));
        assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl"), "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 20);
        let spent = usd("1").nanos() - server.balance().await.nanos();
        assert_eq!(spent, cost(&answer["usage"]));
        server.stop().await;
    }

    async fn a_stream_closes_with_done_and_is_charged(backend) {
        let server = TestServer::start().on(backend).await;
        let reply = server.chat("gpt-x").max_tokens(5).stream().await;
        assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!((reply.header("cache-control"), reply.header("x-accel-buffering")), ("no-cache", "no"));
        let chunks = events(&reply);
        assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
        assert!(chunks.iter().all(|chunk| chunk["choices"] != json!([])), "usage was not asked for");
        let asked = server.chat("chat-model").max_tokens(5).stream().with("stream_options", json!({ "include_usage": true }));
        let chunks = events(&asked.await);
        let usage = &chunks.last().unwrap()["usage"];
        assert_eq!(usage["completion_tokens"], 5);
        let spent = usd("1").nanos() - server.balance().await.nanos();
        assert_eq!(spent, 2 * cost(usage));
        server.stop().await;
    }

    async fn completions_and_embeddings_take_the_same_path(backend) {
        let server = TestServer::start().on(backend).await;
        let text = server.post("/v1/completions", json!({ "model": "chat-model", "prompt": "a b", "max_tokens": 3 }));
        let text = text.await.ok();
        assert_eq!((&text["object"], &text["usage"]["completion_tokens"]), (&json!("text_completion"), &json!(3)));
        assert!(text["id"].as_str().unwrap().starts_with("cmpl"), "{text}");
        for path in ["/v1/embeddings", "/embeddings", "/openai/v1/embeddings"] {
            let vectors = server.post(path, json!({ "model": "embed-model", "input": ["a", "b"] })).await.ok();
            assert_eq!(vectors["data"].as_array().unwrap().len(), 2, "{path}");
            assert_eq!(vectors["model"], "embed-model");
            assert!(vectors["id"].as_str().unwrap().starts_with("embd_"), "{vectors}");
        }
        server.stop().await;
    }

    async fn what_cannot_be_paid_for_does_not_run(backend) {
        let server = TestServer::start().on(backend).with_balance("0.00002").await;
        let reply = server.chat("chat-model").max_tokens(2_000).await;
        let error = reply.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("and 0.002 cents are available"), "{message}");
        assert_eq!(reply.header("x-should-retry"), "false");
        let affordable: u64 = message.split("at most ").nth(1).unwrap().trim_end_matches('.').parse().unwrap();
        assert_eq!((server.sim.calls(), server.balance().await), (0, batchin_domain::Balance::from_nanos(20_000)));
        // What the error says can be afforded, can be.
        server.chat("chat-model").max_tokens(affordable).await.ok();
        server.stop().await;
    }

    async fn a_budget_is_not_overspent(backend) {
        let server = TestServer::start().on(backend).with_budget("0.00001").await;
        let reply = server.chat("chat-model").max_tokens(2_000).await;
        let error = reply.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert!(error["message"].as_str().unwrap().contains("monthly budget"), "{error}");
        assert_eq!(server.sim.calls(), 0);
        server.stop().await;
    }

    async fn a_minute_has_as_many_requests_as_the_key(backend) {
        let server = TestServer::start().on(backend).with_rpm(3).await;
        let replies = join_all((0..6).map(|_| server.chat("chat-model").max_tokens(1).send())).await;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
        // A new minute may have begun in the middle.
        assert!(refused.len() <= 3, "{} refused", refused.len());
        let mut last = server.chat("chat-model").max_tokens(1).await;
        for _ in 0..6 {
            last = server.chat("chat-model").max_tokens(1).await;
        }
        last.error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded");
        assert_eq!((last.header("x-ratelimit-limit-requests"), last.header("x-ratelimit-remaining-requests")), ("3", "0"));
        let seconds: u64 = last.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds));
        server.clock.advance(Duration::from_secs(60));
        server.chat("chat-model").max_tokens(1).await.ok();
        server.stop().await;
    }

    async fn every_bad_body_is_explained(backend) {
        let server = TestServer::start().on(backend).await;
        let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
        let cases = [
            ("{".to_owned(), Value::Null, "invalid_request"),
            ("[]".to_owned(), Value::Null, "invalid_request"),
            (format!("{{{messages}}}"), json!("model"), "invalid_request"),
            (r#"{"model":"chat-model"}"#.to_owned(), json!("messages"), "invalid_request"),
            (r#"{"model":"chat-model","messages":"hi"}"#.to_owned(), json!("messages"), "invalid_request"),
            (format!(r#"{{"model":5,{messages}}}"#), json!("model"), "invalid_request"),
            (format!(r#"{{"model":"chat-model","max_tokens":-1,{messages}}}"#), json!("max_tokens"), "invalid_request"),
            (format!(r#"{{"model":"chat-model","stream":"yes",{messages}}}"#), json!("stream"), "invalid_request"),
            (format!(r#"{{"model":"embed-model",{messages}}}"#), json!("model"), "invalid_request"),
        ];
        for (body, param, code) in cases {
            let reply = server.call(Method::POST, "/v1/chat/completions").body(body.clone()).await;
            assert_eq!(reply.error(StatusCode::BAD_REQUEST, code)["param"], param, "{body}");
        }
        let broken = server.call(Method::POST, "/v1/chat/completions").body("{\"model\":\n x}").await;
        let message = broken.error(StatusCode::BAD_REQUEST, "invalid_request")["message"].clone();
        assert!(message.as_str().unwrap().contains("line 2, column 2"), "{message}");
        let name = "no-such-model".repeat(19);
        let missing = server.chat(&name).await;
        let error = missing.error(StatusCode::NOT_FOUND, "model_not_found");
        assert_eq!(error["param"], "model");
        assert!(error["message"].as_str().unwrap().len() < 200, "a long name is not repeated whole");
        assert_eq!((server.sim.calls(), server.balance().await.nanos()), (0, usd("1").nanos()));
        server.stop().await;
    }

    async fn a_body_over_its_limit_is_refused(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| settings.max_body_bytes = 10_000).await;
        let stated = server.chat("chat-model").with("user", "x".repeat(3_000_000)).await;
        stated.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        let pieces = futures::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b' '; 10_000])));
        let chunked = server.call(Method::POST, "/v1/chat/completions").body(batchin_testkit::streamed(pieces)).await;
        chunked.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        server.chat("chat-model").max_tokens(1).await.ok();
        server.stop().await;
    }

    async fn the_same_key_and_body_give_the_first_answer_again(backend) {
        let server = TestServer::start().on(backend).await;
        let chat = |tokens| server.chat("chat-model").max_tokens(tokens).header("idempotency-key", "k1");
        let first = chat(3).await;
        let (again, at_once) = (chat(3).await, join_all((0..3).map(|_| chat(3).send())).await);
        for reply in std::iter::once(&again).chain(&at_once) {
            assert_eq!((reply.status, &reply.body), (200, &first.body));
            assert_eq!(reply.header("idempotent-replayed"), "true");
        }
        let other = chat(4).await;
        other.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(other.header("x-should-retry"), "false");
        let stream = || server.chat("chat-model").max_tokens(3).stream().header("idempotency-key", "k2");
        let (first, again) = (stream().await, stream().await);
        assert_eq!((first.body, again.header("content-type")), (again.body.clone(), "text/event-stream; charset=utf-8"));
        assert_eq!(server.sim.calls(), 2, "each ran once");
        server.stop().await;
    }

    async fn what_the_model_server_says_reaches_the_client_without_its_address(backend) {
        let server = TestServer::start().on(backend).await;
        server.sim.queue(Behaviour::Refuse(Refusal::vllm(400, "prompt too long for http://10.0.0.5:8000/v1")));
        let refused = server.chat("chat-model").await;
        let error = refused.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["message"], "prompt too long for [address]");
        server.sim.script_all(Behaviour::Drop);
        let dropped = server.chat("chat-model").await;
        assert!([502, 503].contains(&dropped.status), "{}", dropped.text());
        assert_eq!(server.balance().await.nanos(), usd("1").nanos(), "nothing was charged");
        server.stop().await;
    }

    async fn leaving_in_the_middle_stops_the_model_server_and_is_charged(backend) {
        let server = TestServer::start().on(backend).await;
        let slow = Answer { gap: Duration::from_millis(20), ..Answer::of(2_000) };
        server.sim.script_all(Behaviour::Answer(slow));
        let mut response = server.chat("chat-model").stream().open().await;
        for _ in 0..5 {
            response.chunk().await.unwrap().unwrap();
        }
        drop(response);
        tokio::time::timeout(Duration::from_secs(10), server.sim.until_aborted(1)).await.unwrap();
        let settled = async {
            while server.get("/v1/usage/logs").await.ok() == json!([]) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
        let row = server.get("/v1/usage/logs").await.ok()[0].clone();
        assert_eq!((&row["status"], &row["estimated"]), (&json!("client_gone"), &json!(true)));
        let tokens = row["output_tokens"].as_u64().unwrap();
        assert!((3..200).contains(&tokens), "{tokens}");
        assert!(server.balance().await.nanos() < usd("1").nanos());
        server.stop().await;
    }

    async fn the_model_server_is_told_the_limit_and_nothing_that_steers_it(backend) {
        let server = TestServer::start().on(backend).await;
        let steering = [
            ("n_predict", json!(99)),
            ("options", json!({ "num_predict": 99 })),
            ("service_tier", json!("flex")),
            ("x-batchin-class", json!("high")),
            ("priority", json!(-9)),
        ];
        let mut chat = server.chat("chat-model").with("max_completion_tokens", 3).with("max_tokens", 7.0);
        for (name, value) in steering {
            chat = chat.with(name, value);
        }
        assert_eq!(chat.await.ok()["usage"]["completion_tokens"], 3);
        let sent: Value = serde_json::from_slice(&server.sim.requests()[0].body).unwrap();
        let mut names: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!((names, &sent["max_tokens"]), (vec!["max_tokens", "messages", "model"], &json!(3)));
        server.stop().await;
    }

    async fn what_could_be_read_in_two_ways_is_refused_by_its_name(backend) {
        let server = TestServer::start().on(backend).await;
        for (name, value, param) in [
            ("Max_Tokens", json!(100_000), "Max_Tokens"),
            ("mode\u{17f}", json!("x"), ""),
            ("\u{17f}tream", json!(true), "\u{17f}tream"),
            ("PRIORITY", json!(1), "PRIORITY"),
            ("chat_template", json!("{% for i in range(9) %}a{% endfor %}"), "chat_template"),
            ("model", json!("a\u{0}b"), "model"),
            ("max_completion_tokens", json!(-1), "max_completion_tokens"),
        ] {
            let reply = server.chat("chat-model").with(name, value).max_tokens(1).await;
            if param.is_empty() {
                reply.ok();
                continue;
            }
            let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param);
        }
        assert_eq!(server.sim.calls(), 1, "nothing else was sent");
        server.stop().await;
    }

    async fn a_model_server_that_refuses_what_we_add_is_asked_without_it(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let mistral = |name: &str| {
            let fault = json!({ "loc": ["body", name], "msg": "Extra inputs are not permitted" });
            let body = json!({ "message": { "detail": [fault] } }).to_string().into();
            Behaviour::Refuse(Refusal { status: 422, content_type: "application/json", retry_after: None, body })
        };
        server.sim.queue(mistral("stream_options"));
        server.sim.queue(mistral("max_tokens"));
        assert!(!events(&server.chat("chat-model").max_tokens(2).stream().await).is_empty());
        assert_eq!(server.sim.calls(), 3);
        // What was learnt holds for a batch's task, which is streamed too.
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": {
            "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 2,
        } });
        let made = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        let ended = async {
            loop {
                let batch = server.get(&format!("/v1/batches/{}", made["id"].as_str().unwrap())).await.ok();
                if batch["finished_at"] != Value::Null {
                    return batch;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let batch = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
        assert_eq!((&batch["status"], server.sim.calls()), (&json!("completed"), 4));
        let sent: Value = serde_json::from_slice(&server.sim.requests()[3].body).unwrap();
        assert_eq!((&sent["max_completion_tokens"], sent.get("max_tokens"), sent.get("stream_options")), (&json!(2), None, None));
        let explained = mistral("temperature");
        server.sim.queue(explained);
        let error = server.chat("chat-model").await.error(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request");
        assert_eq!(error["message"], "body.temperature: Extra inputs are not permitted");
        server.stop().await;
    }
}
