//! Holds: what is held, counted and charged, whatever a model server does.

use std::time::Duration;

use batchin_testkit::{
    Kind, Reply, TestServer, both,
    sim::{Answer, Behaviour, End, UsageMode},
    usd,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::inference::{cost, events};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of these events' data, a gap before each.
fn stream_of(data: &[Value], gap: Duration, end: End) -> Behaviour {
    let frame = |data: &Value| format!("data: {data}\n\n").into();
    let mut pieces: Vec<_> = data.iter().map(frame).collect();
    if end == End::Done {
        pieces.push("data: [DONE]\n\n".into());
    }
    let end = if end == End::Silent { End::Done } else { end };
    Behaviour::Raw { content_type: "text/event-stream", pieces, gap, end }
}

fn whole(body: &Value) -> Behaviour {
    let pieces = vec![body.to_string().into()];
    Behaviour::Raw { content_type: "application/json", pieces, gap: Duration::ZERO, end: End::Done }
}

fn delta(index: u32, text: &str) -> Value {
    json!({ "choices": [{ "index": index, "delta": { "content": text }, "finish_reason": null }] })
}

fn finish(index: u32) -> Value {
    json!({ "choices": [{ "index": index, "delta": {}, "finish_reason": "stop" }] })
}

fn usage(prompt: u64, completion: u64) -> Value {
    json!({ "choices": [], "usage": { "prompt_tokens": prompt, "completion_tokens": completion } })
}

/// The only row of usage, once its request has ended; what it cost is what its counts cost.
async fn only_row(server: &TestServer) -> Value {
    let ended = async {
        loop {
            let rows = server.get("/v1/usage/logs").await.ok();
            if let Some(row) = rows.as_array().unwrap().iter().find(|row| row["status"] != "running") {
                assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
                return row.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let row = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(usd("1").nanos() - server.balance().await.nanos(), cost(&told(&row)), "{row}");
    server.ledger_check().await;
    row
}

/// A row's counts as a client is told them.
fn told(row: &Value) -> Value {
    json!({ "prompt_tokens": row["input_tokens"], "completion_tokens": row["output_tokens"] })
}

#[track_caller]
fn counts(row: &Value, input: u64, output: u64, estimated: bool, marks: &[&str]) {
    let expected = (&json!(input), &json!(output), &json!(estimated), &json!(marks));
    assert_eq!((&row["input_tokens"], &row["output_tokens"], &row["estimated"], &row["marks"]), expected, "{row}");
}

/// The last reason for an end in a stream.
fn reason(chunks: &[Value]) -> Value {
    let mut reasons = chunks.iter().map(|chunk| chunk["choices"][0]["finish_reason"].clone());
    reasons.rfind(|reason| !reason.is_null()).unwrap_or_default()
}

#[track_caller]
fn broke_off(reply: &Reply) {
    let text = reply.text();
    assert!(text.contains("\"code\":\"upstream_error\"") && !text.contains("[DONE]"), "{text}");
}

both! {
    async fn each_prompt_of_a_list_is_held_for_and_charged(backend) {
        let server = TestServer::start().on(backend).await;
        let prompts = [json!(vec!["hi"; 64]), json!(vec![[1, 2]; 64]), json!(vec!["hi"; 32])];
        for (prompt, n) in prompts.iter().zip([1, 1, 2]) {
            let body = json!({ "model": "chat-model", "prompt": prompt, "max_tokens": 10, "n": n });
            let before = server.balance().await.nanos();
            let answer = server.post("/v1/completions", body.clone()).await.ok();
            assert_eq!(answer["usage"]["completion_tokens"], 640, "{answer}");
            assert_eq!(before - server.balance().await.nanos(), cost(&answer["usage"]));
            // The same, streamed: nothing is held back but the end, and every choice of it ends.
            let mut streamed = body;
            streamed["stream"] = json!(true);
            let before = server.balance().await.nanos();
            let chunks = events(&server.post("/v1/completions", streamed).await);
            assert_eq!(chunks.iter().filter(|chunk| chunk["choices"][63]["text"] != json!("")).count(), 10);
            assert_eq!(before - server.balance().await.nanos(), cost(&answer["usage"]));
        }
        server.stop().await;
        // 64 answers of 1,000 tokens for $5.12 a thousand: a cent is not enough, and not a token runs.
        let poor = TestServer::start().on(backend).with_balance("0.001").await;
        let body = |tokens: u64| json!({ "model": "chat-model", "prompt": vec!["hi"; 64], "max_tokens": tokens });
        let refused = poor.post("/v1/completions", body(1_000)).await;
        let error = refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        let message = error["message"].as_str().unwrap();
        let affordable: u64 = message.split("at most ").nth(1).unwrap().trim_end_matches('.').parse().unwrap();
        assert!(affordable < 200, "{message}");
        assert_eq!(poor.sim.calls(), 0);
        poor.post("/v1/completions", body(affordable)).await.ok();
        poor.stop().await;
    }

    async fn what_was_flushed_is_provisional(backend) {
        let server = TestServer::start().on(backend).await;
        let text: Vec<Value> = (0..6).map(|_| delta(0, "word ")).collect();
        let data = [text, vec![finish(0), usage(5, 12)]].concat();
        server.sim.queue(stream_of(&data, Duration::from_millis(1_100), End::Done));
        let messages = json!([{ "role": "user", "content": "x".repeat(8_000) }]);
        let asked = server.chat("chat-model").max_tokens(40).stream().with("messages", messages);
        let mut response = asked.open().await;
        let flushed = async {
            while server.get("/v1/usage/logs").await.ok() == json!([]) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, flushed).await.unwrap();
        let row = server.get("/v1/usage/logs").await.ok()[0].clone();
        assert_eq!((&row["status"], &row["estimated"]), (&json!("running"), &json!(true)));
        assert!(row["input_tokens"].as_u64().unwrap() > 2_000, "{row}");
        while response.chunk().await.unwrap().is_some() {}
        let row = only_row(&server).await;
        counts(&row, 5, 12, false, &[]);
        let summary = server.get("/v1/usage/summary").await.ok();
        assert_eq!(summary["total_input_tokens"], 5, "{summary}");
        server.stop().await;
    }

    async fn an_answer_without_usage_is_counted_by_its_text(backend) {
        for (message, output) in [
            (json!({ "content": "hello" }), 2),
            (json!({ "content": "hello", "reasoning_content": "abcd" }), 3),
            (json!({ "content": "x".repeat(4_000) }), 200),
        ] {
            let server = TestServer::start().on(backend).await;
            let logprobs = json!({ "content": [{ "token": "hello", "logprob": -0.1, "top_logprobs": [] }] });
            let choice = json!({ "index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop" });
            server.sim.queue(whole(&json!({ "choices": [choice] })));
            let answer = server.chat("chat-model").max_tokens(200).await.ok();
            let row = only_row(&server).await;
            let capped: &[&str] = if output == 200 { &["capped"] } else { &[] };
            counts(&row, 9, output, true, capped);
            assert_eq!(answer["usage"], json!({
                "prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output,
            }));
            server.stop().await;
        }
    }

    async fn each_image_of_a_prompt_without_usage_counts(backend) {
        let silent = || {
            let choice = json!({ "index": 0, "message": { "content": "cats" }, "finish_reason": "stop" });
            whole(&json!({ "choices": [choice] }))
        };
        let server = TestServer::start().on(backend).with_worker().await;
        let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
        let text = json!({ "type": "text", "text": "What is it?" });
        let named = image("https://example.com/cat.png");
        let here = image(&format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(1_000)));
        let body = |parts: &[&Value]| {
            json!({ "model": "chat-model", "messages": [{ "role": "user", "content": parts }], "max_tokens": 10 })
        };
        let thousands = |row: &Value| {
            assert_eq!((&row["estimated"], &row["marks"]), (&json!(true), &json!([])), "{row}");
            let tokens = row["input_tokens"].as_u64().unwrap();
            assert!(tokens % 1_000 < 150, "{row}");
            tokens / 1_000
        };
        let newest = async || server.get("/v1/usage/logs").await.ok()[0].clone();
        for (parts, images) in
            [(vec![&text, &named], 1), (vec![&named, &text, &named, &named], 3), (vec![&here, &named, &text, &here], 3)]
        {
            server.sim.queue(silent());
            let answer = server.post("/v1/chat/completions", body(&parts)).await.ok();
            let row = newest().await;
            assert_eq!(thousands(&row), images, "{row}");
            assert_eq!(answer["usage"]["prompt_tokens"], row["input_tokens"]);
        }
        // More than the model can read: what was held for is charged, and no more.
        server.sim.queue(silent());
        server.post("/v1/chat/completions", body(&[&named; 20])).await.ok();
        let row = newest().await;
        assert_eq!((&row["input_tokens"], &row["marks"]), (&json!(8_192), &json!(["capped"])), "{row}");

        server.sim.queue(silent());
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body(&[&named, &text, &here]) });
        let batch = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.json();
        let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        let ended = async {
            while server.get(&path).await.ok()["finished_at"].is_null() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(thousands(&newest().await), 2);
        server.ledger_check().await;
        server.stop().await;
    }

    async fn the_servers_own_count_is_billed(backend) {
        let server = TestServer::start().on(backend).await;
        let text = "The quick brown fox jumps over the lazy dog.";
        let letters = text.chars().map(|letter| delta(0, &letter.to_string()));
        let data: Vec<Value> = letters.chain([finish(0), usage(10, 10)]).collect();
        server.sim.queue(stream_of(&data, Duration::ZERO, End::Done));
        let chunks = events(&server.chat("chat-model").max_tokens(10).stream().await);
        assert_eq!((chunks.len(), reason(&chunks)), (45, json!("stop")));
        counts(&only_row(&server).await, 10, 10, false, &["below_pieces"]);
        server.stop().await;
    }

    async fn what_is_told_last_is_what_is_billed(backend) {
        let zeros = json!({ "choices": [], "usage": { "prompt_tokens": 0, "completion_tokens": 0 } });
        let part = json!({ "choices": [], "usage": { "completion_tokens": 2 } });
        for last in [usage(3, 2), part, zeros] {
            let server = TestServer::start().on(backend).with_worker().await;
            let data = [delta(0, "word"), finish(0), usage(12, 6), last.clone()];
            let options = json!({ "include_usage": true });
            server.sim.queue(stream_of(&data, Duration::ZERO, End::Done));
            let streamed = server.chat("chat-model").max_tokens(10).stream().with("stream_options", options);
            let told = events(&streamed.await).last().unwrap()["usage"].clone();
            server.sim.queue(stream_of(&data, Duration::ZERO, End::Done));
            let whole = server.chat("chat-model").max_tokens(10).await.ok()["usage"].clone();
            for told in [&told, &whole] {
                assert_eq!((&told["prompt_tokens"], &told["completion_tokens"]), (&json!(12), &json!(6)), "{last}");
            }
            let rows = server.get("/v1/usage/logs").await.ok();
            rows.as_array().unwrap().iter().for_each(|row| counts(row, 12, 6, false, &[]));
            server.stop().await;
        }
    }

    async fn counts_stay_within_what_was_held(backend) {
        for count in [1_u64 << 63, 1_000_000_000_000_000_000, 600] {
            let server = TestServer::start().on(backend).await;
            let body = json!({ "choices": [{ "index": 0, "message": { "content": "a" }, "finish_reason": "stop" }],
                "usage": { "prompt_tokens": count, "completion_tokens": count } });
            server.sim.queue(whole(&body));
            let answer = server.chat("chat-model").max_tokens(10).await.ok();
            let row = only_row(&server).await;
            assert_eq!((&row["output_tokens"], &row["marks"]), (&json!(10), &json!(["capped"])));
            assert!(row["input_tokens"].as_u64().unwrap() < 200, "{row}");
            assert_eq!(answer["usage"]["completion_tokens"], 10, "what is told is what is paid");
            for path in ["summary", "by-model", "timeseries"] {
                server.get(&format!("/v1/usage/{path}")).await.ok();
            }
            server.stop().await;
        }
    }

    async fn a_server_that_ignores_the_limit_is_cut_off(backend) {
        for kind in [Kind::OPENAI, Kind::VLLM] {
            let server = TestServer::start().on(backend).with_kind(kind).await;
            let data: Vec<Value> = (0..2_000).map(|_| delta(0, "word ")).collect();
            server.sim.queue(stream_of(&data, Duration::from_millis(1), End::Hang));
            let options = json!({ "include_usage": true });
            let reply = server.chat("chat-model").max_tokens(10).stream().with("stream_options", options).await;
            let chunks = events(&reply);
            assert_eq!(reason(&chunks), "length");
            assert!(chunks.len() < 60, "{} chunks", chunks.len());
            let told = chunks.last().unwrap();
            assert_eq!((&told["choices"], &told["usage"]["completion_tokens"]), (&json!([]), &json!(10)));
            tokio::time::timeout(PATIENCE, server.sim.until_aborted(1)).await.unwrap();
            let row = only_row(&server).await;
            assert_eq!((&row["status"], &row["output_tokens"]), (&json!("completed"), &json!(10)));
            assert_eq!(row["marks"], json!(["capped", "cut"]));
            server.stop().await;
        }
    }

    async fn a_cut_tells_the_end_of_each_choice(backend) {
        let server = TestServer::start().on(backend).await;
        let last = json!({ "choices": [{ "index": 0, "delta": { "content": "x".repeat(9_000) }, "finish_reason": "stop" }] });
        server.sim.queue(stream_of(&[delta(0, "a"), delta(1, "b"), last], Duration::ZERO, End::Hang));
        let chunks = events(&server.chat("chat-model").max_tokens(10).with("n", 2).stream().await);
        let ends = |index: u32| {
            let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
            let of = choices.filter(|choice| choice["index"] == index && !choice["finish_reason"].is_null());
            of.map(|choice| choice["finish_reason"].clone()).collect::<Vec<_>>()
        };
        assert_eq!((ends(0), ends(1)), (vec![json!("stop")], vec![json!("length")]), "{chunks:?}");
        assert_eq!(only_row(&server).await["marks"], json!(["capped", "cut"]));
        server.stop().await;
    }

    async fn a_stream_is_whole_when_all_of_its_choices_have_ended(backend) {
        let two = |server: &TestServer| server.chat("chat-model").max_tokens(10).with("n", 2).stream();
        for (data, end) in [
            (vec![delta(0, "a"), delta(1, "b"), finish(0)], End::Silent),
            (vec![delta(0, "a"), finish(0)], End::Silent),
            (vec![delta(0, "a"), finish(0), finish(0)], End::Silent),
            (vec![delta(0, "a"), delta(1, "b"), finish(0)], End::Done),
        ] {
            let server = TestServer::start().on(backend).await;
            server.sim.queue(stream_of(&data, Duration::ZERO, end));
            broke_off(&two(&server).await);
            assert_eq!(only_row(&server).await["status"], "upstream_failed", "{data:?}");
            server.stop().await;
        }
        let server = TestServer::start().on(backend).await;
        let data = [delta(0, "a"), finish(0), delta(1, "b"), delta(1, "c"), finish(1), usage(5, 3)];
        server.sim.queue(stream_of(&data, Duration::ZERO, End::Silent));
        assert_eq!(events(&two(&server).await).len(), 5);
        counts(&only_row(&server).await, 5, 3, false, &[]);
        server.stop().await;
    }

    async fn what_follows_the_end_is_bounded(backend) {
        let server = TestServer::start().on(backend).await;
        let more = (0..5_000).map(|_| delta(0, &"x".repeat(1_000)));
        let data: Vec<Value> = [delta(0, "a"), finish(0)].into_iter().chain(more).collect();
        server.sim.queue(stream_of(&data, Duration::ZERO, End::Hang));
        assert!(events(&server.chat("chat-model").max_tokens(10).stream().await).len() < 30);
        assert_eq!(only_row(&server).await["status"], "completed");
        server.stop().await;
    }

    async fn an_answer_whose_choices_have_ended_is_whole(backend) {
        let error = json!({ "error": { "message": "boom", "type": "server_error", "code": 500 } });
        let said = [delta(0, "a"), finish(0), usage(5, 1)];
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM).await;
        let failing = || stream_of(&[said.to_vec(), vec![error.clone()]].concat(), Duration::ZERO, End::Done);
        server.sim.queue(failing());
        let reply = server.chat("chat-model").max_tokens(10).stream().await;
        assert!(reply.text().ends_with("data: [DONE]\n\n") && !reply.text().contains("boom"), "{}", reply.text());
        let row = only_row(&server).await;
        assert_eq!(row["status"], "completed");
        counts(&row, 5, 1, false, &[]);
        server.sim.queue(failing());
        let answer = server.chat("chat-model").max_tokens(10).await.ok();
        assert_eq!(answer["choices"][0]["message"]["content"], "a");
        server.stop().await;
        // Pings and counts without end keep nobody waiting.
        for more in [": ping\n\n".to_owned(), format!("data: {}\n\n", usage(5, 1))] {
            let server = TestServer::start().on(backend).await;
            let pieces: Vec<_> = said.iter().take(2).map(|data| format!("data: {data}\n\n")).collect();
            let pieces = pieces.into_iter().chain((0..200).map(|_| more.clone())).map(Into::into).collect();
            let gap = Duration::from_millis(1);
            server.sim.queue(Behaviour::Raw { content_type: "text/event-stream", pieces, gap, end: End::Hang });
            let reply = server.chat("chat-model").max_tokens(10).stream().await;
            assert!(reply.text().ends_with("data: [DONE]\n\n"), "{}", reply.text());
            assert_eq!(only_row(&server).await["status"], "completed");
            server.stop().await;
        }
    }

    async fn a_client_that_leaves_pays_for_what_it_was_sent(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::OPENAI).await;
        let data = [delta(0, &"word ".repeat(2_000))];
        server.sim.queue(stream_of(&data, Duration::ZERO, End::Hang));
        let mut response = server.chat("chat-model").max_tokens(2_048).stream().open().await;
        response.chunk().await.unwrap().unwrap();
        drop(response);
        let row = only_row(&server).await;
        assert_eq!(row["output_tokens"], 2_048, "2,500 by the text, and no more than was asked for");
        server.stop().await;
    }

    async fn a_whole_answer_is_charged_where_leaving_does_not_stop_it(backend) {
        for (kind, rows) in [(Kind::OPENAI, 2), (Kind::VLLM, 0)] {
            let server = TestServer::start().on(backend).with_kind(kind).await;
            let slow = Answer { first_byte: Duration::from_millis(300), ..Answer::of(20) };
            server.sim.script_all(Behaviour::Answer(slow));
            let left = async |key: Option<&str>| {
                let calls = server.sim.calls();
                let mut chat = server.chat("chat-model").max_tokens(20);
                if let Some(key) = key {
                    chat = chat.header("idempotency-key", key);
                }
                tokio::select! {
                    reply = chat.send() => panic!("{}", reply.text()),
                    () = server.sim.until_calls(calls + 1) => {}
                }
            };
            left(None).await;
            left(Some("once")).await;
            if rows == 0 {
                tokio::time::timeout(PATIENCE, server.sim.until_aborted(2)).await.unwrap();
            }
            let all = async {
                while server.get("/v1/usage/logs").await.ok().as_array().unwrap().len() < rows {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, all).await.unwrap();
            let logs = server.get("/v1/usage/logs").await.ok();
            let logs = logs.as_array().unwrap();
            assert!(logs.iter().all(|row| row["status"] == "client_gone" && row["output_tokens"] == 20), "{logs:?}");
            let spent: i64 = logs.iter().map(|row| cost(&told(row))).sum();
            assert_eq!((logs.len(), usd("1").nanos() - server.balance().await.nanos()), (rows, spent));
            if rows > 0 {
                // Whoever asks again under the key gets the answer that was paid for.
                let again = server.chat("chat-model").max_tokens(20).header("idempotency-key", "once").await;
                assert_eq!(again.header("idempotent-replayed"), "true");
                assert_eq!(server.sim.calls(), 2);
            }
            server.stop().await;
        }
    }

    async fn a_stream_is_charged_where_leaving_before_it_does_not_stop_it(backend) {
        for (kind, rows) in [(Kind::OPENAI, 1), (Kind::VLLM, 0)] {
            let server = TestServer::start().on(backend).with_kind(kind).await;
            let slow = Answer { first_byte: Duration::from_millis(300), ..Answer::of(20) };
            server.sim.script_all(Behaviour::Answer(slow));
            let asked = || server.chat("chat-model").max_tokens(20).stream().header("idempotency-key", "once");
            tokio::select! {
                reply = asked().send() => panic!("{}", reply.text()),
                () = server.sim.until_calls(1) => {}
            }
            if rows == 0 {
                tokio::time::timeout(PATIENCE, server.sim.until_aborted(1)).await.unwrap();
                assert_eq!(asked().await.status, 200);
            } else {
                let row = only_row(&server).await;
                assert_eq!((&row["status"], &row["output_tokens"]), (&json!("client_gone"), &json!(0)), "{row}");
                assert!(row["input_tokens"].as_u64().unwrap() > 0, "{row}");
                assert_eq!(asked().await.status, 409, "it was cut off, and is not made again");
                assert_eq!(server.sim.calls(), 1);
            }
            server.stop().await;
        }
    }

    async fn more_than_the_model_gives_is_what_it_gives(backend) {
        let server = TestServer::start().on(backend).await;
        for name in ["max_tokens", "max_completion_tokens"] {
            server.sim.script_all(Behaviour::Answer(Answer::of(9_000)));
            let answer = server.chat("chat-model").with(name, 32_000).await.ok();
            assert_eq!(answer["choices"][0]["finish_reason"], "length");
            assert_eq!(answer["usage"]["completion_tokens"], 2_048);
        }
        let sent = server.sim.requests();
        assert!(sent.iter().all(|sent| !String::from_utf8_lossy(&sent.body).contains("32000")), "{sent:?}");
        server.stop().await;
    }

    async fn the_models_own_limit_is_told_behind_any_prompt(backend) {
        for (kind, told) in [(Kind::OLLAMA, true), (Kind::LLAMACPP, true), (Kind::VLLM, false), (Kind::OPENAI, false)] {
            let server = TestServer::start().on(backend).with_kind(kind).await;
            // More bytes than the context leaves room for, and far fewer tokens.
            let messages = json!([{ "role": "user", "content": "word ".repeat(1_500) }]);
            server.chat("chat-model").with("messages", messages).await.ok();
            let body: Value = serde_json::from_slice(&server.sim.requests()[0].body).unwrap();
            assert_eq!(body["max_tokens"], if told { json!(2_048) } else { Value::Null }, "{kind}");
            server.stop().await;
        }
    }

    async fn a_completion_may_be_its_prompt_alone(backend) {
        for (with_usage, estimated) in [(UsageMode::AsAsked, false), (UsageMode::Never, true)] {
            let server = TestServer::start().on(backend).await;
            server.sim.script_all(Behaviour::Answer(Answer { usage: with_usage, ..Answer::default() }));
            let body = json!({ "model": "chat-model", "prompt": "a b c", "max_tokens": 0, "echo": true, "logprobs": 1 });
            server.post("/v1/completions", body).await.ok();
            assert!(String::from_utf8_lossy(&server.sim.requests()[0].body).contains("\"max_tokens\":0"));
            let row = only_row(&server).await;
            assert_eq!((&row["output_tokens"], &row["estimated"]), (&json!(0), &json!(estimated)), "{row}");
            server.stop().await;
        }
    }

    async fn who_asks_for_an_echo_pays_for_the_answer(backend) {
        for kind in [Kind::OPENAI, Kind::OLLAMA] {
            let server = TestServer::start().on(backend).with_kind(kind).await;
            let choice = json!({ "index": 0, "text": "x".repeat(400), "finish_reason": "stop" });
            server.sim.queue(whole(&json!({ "choices": [choice] })));
            let prompt = "y".repeat(4_000);
            let body = json!({ "model": "chat-model", "prompt": prompt, "max_tokens": 200, "echo": true });
            server.post("/v1/completions", body).await.ok();
            assert_eq!(only_row(&server).await["output_tokens"], 100, "{kind}");
            server.stop().await;
        }
        // An honest echo of ids is not cut off: their text may be long.
        let server = TestServer::start().on(backend).with_kind(Kind::OPENAI).await;
        let text = json!({ "choices": [{ "index": 0, "text": "word".repeat(1_000), "finish_reason": null }] });
        let end = json!({ "choices": [{ "index": 0, "text": "", "finish_reason": "length" }] });
        server.sim.queue(stream_of(&[text, end, usage(1_000, 1)], Duration::ZERO, End::Done));
        let ids = vec![7; 1_000];
        let body = json!({ "model": "chat-model", "prompt": ids, "max_tokens": 1, "echo": true, "stream": true });
        server.post("/v1/completions", body).await;
        counts(&only_row(&server).await, 1_000, 1, false, &[]);
        server.stop().await;
    }

    async fn batch_tasks_are_counted_alike(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let letters: Vec<Value> = "The quick brown fox jumps.".chars().map(|letter| delta(0, &letter.to_string())).collect();
        let honest = [letters, vec![finish(0), usage(10, 6)]].concat();
        let endless: Vec<Value> = (0..2_000).map(|_| delta(0, "word ")).collect();
        let half = [delta(0, "a"), finish(0)];
        server.sim.queue(stream_of(&honest, Duration::ZERO, End::Done));
        server.sim.queue(stream_of(&endless, Duration::from_millis(1), End::Hang));
        server.sim.queue(stream_of(&half, Duration::ZERO, End::Done));
        let body = |n: u32| json!({ "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 10, "n": n });
        let run = async |id: &str, n: u32| {
            let task = json!({ "custom_id": id, "model": "chat-model", "request_body": body(n) });
            let batch = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.json();
            let id = batch["id"].as_str().unwrap().to_owned();
            let ended = async {
                loop {
                    let batch = server.get(&format!("/v1/batches/{id}")).await.ok();
                    if !batch["finished_at"].is_null() {
                        return batch;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, ended).await.unwrap();
            let results = server.get(&format!("/v1/batches/{id}/results")).await;
            serde_json::from_str::<Value>(results.text().lines().next().unwrap()).unwrap()
        };
        let rows = async || server.get("/v1/usage/logs").await.ok().as_array().unwrap().clone();
        for (id, output, reason, marks) in
            [("honest", 6, "stop", json!(["below_pieces"])), ("endless", 10, "length", json!(["capped", "cut"]))]
        {
            let line = run(id, 1).await;
            let result = &line["result"];
            let row = rows().await.remove(0);
            assert_eq!((&row["output_tokens"], &row["marks"]), (&json!(output), &marks), "{row}");
            assert_eq!(result["usage"]["completion_tokens"], output, "{line}");
            assert_eq!(result["usage"]["prompt_tokens"], row["input_tokens"], "{line}");
            assert_eq!(result["choices"][0]["finish_reason"], reason, "{line}");
        }
        // Half an answer is none: the next try gives both choices.
        let line = run("half", 2).await;
        assert_eq!(line["result"]["choices"].as_array().unwrap().len(), 2, "{line}");
        assert_eq!(rows().await.len(), 3);
        server.stop().await;
    }

    async fn a_batch_of_prompt_lists_is_held_to_its_highest_cost(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let task = |id: usize| {
            let body = json!({ "prompt": vec!["hi"; 64], "max_tokens": 100 });
            json!({ "custom_id": format!("t{id}"), "model": "chat-model", "request_body": body })
        };
        let tasks: Vec<Value> = (0..4).map(task).collect();
        // One of them may cost 0.0512 cents for its answers, and a little for its prompts.
        let order = json!({ "tasks": tasks, "priority": "high", "max_cost_cents": 0.13 });
        let batch = server.post("/v1/batches", order).await.json();
        let id = batch["id"].as_str().unwrap().to_owned();
        let ended = async {
            while server.get(&format!("/v1/batches/{id}")).await.ok()["finished_at"].is_null() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        let rows = server.get("/v1/usage/logs").await.ok();
        let spent: i64 = rows.as_array().unwrap().iter().map(|row| cost(&told(row))).sum();
        assert!(spent <= 1_300_000, "{spent}");
        assert!(rows.as_array().unwrap().len() <= 2, "{rows}");
        assert_eq!(usd("1").nanos() - server.balance().await.nanos(), spent);
        server.stop().await;
    }
}
