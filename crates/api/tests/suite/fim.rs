//! Holds: completions that fill in the middle, from a client's `suffix` to what its model server is sent.

use batchin_testkit::{
    Call, Kind, TestServer, both,
    sim::{Answer, Behaviour, SimServer},
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::batches::until_final;

fn completion(server: &TestServer, prompt: &str, suffix: &str) -> Call {
    let body = json!({ "model": "chat-model", "prompt": prompt, "suffix": suffix, "max_tokens": 3 });
    server.post("/v1/completions", body)
}

/// The body that came last.
fn last(sim: &SimServer) -> Value {
    serde_json::from_slice(&sim.requests().last().unwrap().body).unwrap()
}

both! {
    async fn a_suffix_reaches_a_server_without_a_template_as_the_families_prompt(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM).with_fim("qwen").with_worker().await;
        server.sim.script_all(Behaviour::Answer(Answer::of(3)));
        let prompt = "<|fim_prefix|>def f(a):<|fim_suffix|>return b<|fim_middle|>";
        let answer = completion(&server, "def f(a):", "return b").with("stop", "\n\n").await.ok();
        assert_eq!((&answer["object"], &answer["usage"]["completion_tokens"]), (&json!("text_completion"), &json!(3)));
        let sent = last(&server.sim);
        assert_eq!((&sent["prompt"], &sent["suffix"]), (&json!(prompt), &Value::Null));
        assert_eq!((&sent["stop"][0], &sent["stop"][1]), (&json!("\n\n"), &json!("<|file_sep|>")));
        let stream = completion(&server, "def f(a):", "return b").stream().await;
        assert!(stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
        assert_eq!(last(&server.sim)["prompt"], prompt);
        let body = json!({ "prompt": "def f(a):", "suffix": "return b", "max_tokens": 3 });
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
        let made = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!((&batch["completed_tasks"], &last(&server.sim)["prompt"]), (&json!(1), &json!(prompt)), "{batch}");
        server.stop().await;
    }

    async fn what_cannot_be_filled_in_is_refused_by_its_member_and_costs_nothing(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM).with_worker().with_second_sim().await;
        let before = server.balance().await;
        let error = completion(&server, "a", "b").await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "suffix");
        let body = json!({ "prompt": "a", "suffix": "b" });
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
        let made = server.post("/v1/batches", json!({ "tasks": [task], "priority": "high" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!(batch["tasks"][0]["error"]["status_code"], 400, "{batch}");
        let listed = json!({ "model": "chat-model", "prompt": ["a"], "suffix": "b" });
        let error = server.post("/v1/completions", listed).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "prompt");
        let error = completion(&server, "a", "b").with("echo", true).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "echo");
        assert_eq!((server.sim.calls(), server.balance().await), (0, before));
        // Nothing behind it is no middle.
        completion(&server, "a", "").await.ok();
        server.stop().await;
    }

    async fn a_text_with_a_mark_in_it_is_refused_where_it_would_be_read_as_one(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM).with_fim("starcoder").await;
        for (prompt, suffix, param) in [("a<fim_suffix>b", "c", "prompt"), ("a", "<fim_middle>", "suffix")] {
            let error = completion(&server, prompt, suffix).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], param);
        }
        assert_eq!(server.sim.calls(), 0);
        server.stop().await;
        let server = TestServer::start().on(backend).with_kind(Kind::OLLAMA).with_fim("starcoder").await;
        completion(&server, "a<fim_suffix>b", "c").await.ok();
        assert_eq!(last(&server.sim)["suffix"], "c");
        server.stop().await;
    }
}

batchin_testkit::both! {
    async fn mistral_s_call_is_a_completion_told_as_a_chat(backend) {
        let server = TestServer::start().on(backend).with_fim("codellama").await;
        let body = json!({ "model": "chat-model", "prompt": "a b", "suffix": "c", "max_tokens": 3, "random_seed": 7 });
        let answer = server.post("/v1/fim/completions", body.clone()).await.ok();
        assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("chat-model")));
        assert!(answer["id"].as_str().unwrap().starts_with("fim_"), "{answer}");
        let choice = &answer["choices"][0];
        assert!(choice["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("length")));
        let sent = server.sim.requests().pop().unwrap();
        let asked: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!((sent.path.as_str(), &asked["seed"], asked.get("suffix")), ("/v1/completions", &json!(7), None));
        let mut streamed = body;
        streamed["stream"] = true.into();
        let chunks = crate::inference::events(&server.post("/v1/fim/completions", streamed).await);
        let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, choice["message"]["content"].as_str().unwrap());
        assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"), "{chunks:?}");
        let spent = batchin_testkit::usd("1").nanos() - server.balance().await.nanos();
        assert_eq!(spent, 2 * crate::inference::cost(&answer["usage"]));
        server.ledger_check().await;
        server.stop().await;
    }
}
