//! Holds: rankings of documents, in one shape whatever their model server answers.

use batchin_testkit::{TestServer, both, sim::Behaviour};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    batches::until_final,
    embeddings::{cost, raw, spent},
};

/// Scored by the simulated server as 0.5, 0 and 1.
const DOCUMENTS: [&str; 3] = ["a c", "c", "a b"];

fn asked(more: Value) -> Value {
    let mut body = json!({ "model": "rank-model", "query": "a b", "documents": DOCUMENTS });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Five words of documents, and the query's two with each.
const TOKENS: u64 = 11;

both! {
    async fn documents_are_ranked_and_charged_by_what_is_read(backend) {
        let server = TestServer::start().on(backend).await;
        let usage = json!({ "prompt_tokens": TOKENS, "total_tokens": TOKENS });
        let mut paid = 0;
        for path in ["/v1/rerank", "/rerank", "/openai/v1/rerank"] {
            let answer = server.post(path, asked(json!({}))).await.ok();
            assert!(answer["id"].as_str().unwrap().starts_with("rerank_"), "{answer}");
            assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("rank-model")));
            let results = json!([
                { "index": 2, "relevance_score": 1.0 },
                { "index": 0, "relevance_score": 0.5 },
                { "index": 1, "relevance_score": 0.0 },
            ]);
            assert_eq!((&answer["results"], &answer["usage"], answer.get("meta")), (&results, &usage, None), "{path}");
            paid += cost("0.03", TOKENS);
            assert_eq!(spent(&server).await, paid, "{path}");
        }
        let best = asked(json!({ "top_n": 1, "return_documents": true, "documents": [{ "text": "c", "id": 7 }, "a b"] }));
        let answer = server.post("/v2/rerank", best).await.ok();
        let results = json!([{ "index": 1, "relevance_score": 1.0, "document": { "text": "a b" } }]);
        let meta = json!({ "api_version": { "version": "2" }, "billed_units": { "input_tokens": 7 } });
        assert_eq!((&answer["results"], &answer["meta"]), (&results, &meta));
        assert_eq!(spent(&server).await, paid + cost("0.03", 7));
        let sent: Value = serde_json::from_slice(&server.sim.requests()[3].body).unwrap();
        assert_eq!((&sent["documents"], &sent["top_n"]), (&json!(["c", "a b"]), &json!(1)));
        assert_eq!(server.sim.requests()[3].path, "/v1/rerank");
        let rows = server.get("/v1/usage/logs").await.ok();
        assert_eq!((&rows[0]["input_tokens"], &rows[0]["output_tokens"]), (&json!(7), &json!(0)));
        server.stop().await;
    }

    async fn every_server_s_answer_has_the_one_shape(backend) {
        let server = TestServer::start().on(backend).await;
        let told = json!([{ "index": 2, "relevance_score": 0.9 }, { "index": 0, "relevance_score": 0.2 }]);
        let all = |score: &str| {
            let one = |index: u32, value: f64| json!({ "index": index, score: value });
            json!([one(0, 0.2), one(1, -3.0), one(2, 0.9)])
        };
        // The query with each document, and those as JSON has them: 9 + 15 + 17 bytes in all.
        let by_text = (3 * 5 + json!(DOCUMENTS).to_string().len() as u64).div_ceil(4);
        let mut paid = 0;
        for (answer, tokens) in [
            (json!({ "model": "x", "object": "list", "usage": { "prompt_tokens": 20, "total_tokens": 20 },
                "results": all("relevance_score") }), 20),
            (json!({ "model": "x", "usage": { "total_tokens": 21 }, "results": all("relevance_score") }), 21),
            (json!({ "id": "x", "results": all("relevance_score"), "meta": { "billed_units": { "search_units": 1 } } }), by_text),
            (all("score"), by_text),
        ] {
            server.sim.script_all(raw(&answer));
            let reply = server.post("/v1/rerank", asked(json!({ "top_n": 2 }))).await.ok();
            let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
            assert_eq!((&reply["results"], &reply["usage"]), (&told, &usage), "{answer}");
            paid += cost("0.03", tokens);
            assert_eq!(spent(&server).await, paid, "{answer}");
        }
        for bad in [json!([]), json!([{ "index": 0, "score": 1 }]), json!({ "results": [{ "index": 9, "score": 1 }] })] {
            server.sim.script_all(raw(&bad));
            let reply = server.post("/v1/rerank", asked(json!({}))).await;
            reply.error(StatusCode::BAD_GATEWAY, "upstream_error");
        }
        assert_eq!(spent(&server).await, paid);
        server.stop().await;
    }

    async fn a_batch_ranks_too(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let body = json!({ "query": "a b", "documents": DOCUMENTS, "top_n": 1 });
        let task = |id: &str, url: Value| json!({ "custom_id": id, "model": "rank-model", "url": url, "request_body": body });
        let tasks = json!([task("a", json!("/v1/rerank")), task("b", Value::Null)]);
        let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "low" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!(batch["completed_tasks"], 2, "{batch}");
        for at in [0, 1] {
            let result = &batch["tasks"][at]["result"];
            assert_eq!(result["results"], json!([{ "index": 2, "relevance_score": 1.0 }]), "{result}");
        }
        assert_eq!(spent(&server).await, 2 * cost("0.015", TOKENS));
        server.stop().await;
    }

    async fn what_cannot_be_ranked_is_explained(backend) {
        let server = TestServer::start().on(backend).await;
        for (more, param) in [
            (json!({ "query": "" }), "query"),
            (json!({ "documents": [] }), "documents"),
            (json!({ "documents": ["a", { "image": "x" }] }), "documents[1]"),
            (json!({ "top_n": 0 }), "top_n"),
            (json!({ "stream": true }), "stream"),
            (json!({ "model": "chat-model" }), "model"),
        ] {
            let reply = server.post("/v1/rerank", asked(more.clone())).await;
            assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], param, "{more}");
        }
        server.sim.script_all(Behaviour::Drop);
        server.post("/v1/rerank", asked(json!({}))).await.error(StatusCode::BAD_GATEWAY, "upstream_error");
        assert_eq!((spent(&server).await, server.sim.calls() > 0), (0, true));
        server.stop().await;
    }
}
