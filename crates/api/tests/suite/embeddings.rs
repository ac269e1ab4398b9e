//! Holds: vectors as clients ask for them, whatever their model server knows.

use std::time::Duration;

use batchin_domain::{Counts, Rate, Tariff};
use batchin_testkit::{
    TestServer, both,
    sim::{Behaviour, End, Refusal},
    usd,
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::batches::until_final;

/// What a server says, as it says it.
pub(crate) fn raw(body: &Value) -> Behaviour {
    let pieces = vec![Bytes::from(body.to_string())];
    Behaviour::Raw { content_type: "application/json", pieces, gap: Duration::ZERO, end: End::Done }
}

pub(crate) async fn spent(server: &TestServer) -> i64 {
    usd("1").nanos() - server.balance().await.nanos()
}

/// What so many prompt tokens cost at so many dollars a million.
pub(crate) fn cost(dollars: &str, tokens: u64) -> i64 {
    let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
    Tariff::of_tokens(rate(dollars), rate("0")).cost(Counts::of_tokens(tokens, 0)).nanos()
}

fn vectors(data: &Value) -> Behaviour {
    raw(&json!({ "object": "list", "data": data, "model": "x", "usage": { "prompt_tokens": 3, "total_tokens": 3 } }))
}

fn item(index: u32, embedding: impl Into<Value>) -> Value {
    json!({ "object": "embedding", "index": index, "embedding": embedding.into() })
}

fn asked(format: &Value) -> Value {
    let mut body = json!({ "model": "embed-model", "input": ["a", "b"], "dimensions": 2 });
    if !format.is_null() {
        body["encoding_format"] = format.clone();
    }
    body
}

/// Of `[1.0, -0.25]` and `[0.5, 2.0]`.
const BASE64: [&str; 2] = ["AACAPwAAgL4=", "AAAAPwAAAEA="];

both! {
    async fn vectors_come_as_they_were_asked_for(backend) {
        let server = TestServer::start().on(backend).await;
        let floats = [json!([1.0, -0.25]), json!([0.5, 2.0])];
        let base64 = BASE64.map(Value::from);
        let mut calls = 0;
        for given in [&floats, &base64] {
            server.sim.script_all(vectors(&json!([item(0, given[0].clone()), item(1, given[1].clone())])));
            for (format, expected) in
                [(Value::Null, &floats), (json!("float"), &floats), (json!("base64"), &base64)]
            {
                let answer = server.post("/v1/embeddings", asked(&format)).await.ok();
                assert_eq!(answer["data"], json!([item(0, expected[0].clone()), item(1, expected[1].clone())]), "{format}");
                calls += 1;
                assert_eq!(spent(&server).await, calls * cost("0.01", 3), "{format}");
            }
        }
        let sent: Value = serde_json::from_slice(&server.sim.requests()[2].body).unwrap();
        assert_eq!((&sent["encoding_format"], &sent["dimensions"]), (&json!("base64"), &json!(2)));
        for other in [json!("int8"), json!(1), json!(["float"])] {
            let error = server.post("/v1/embeddings", asked(&other)).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], "encoding_format", "{other}");
        }
        server.stop().await;
    }

    async fn a_server_that_refuses_an_encoding_is_asked_without(backend) {
        let server = TestServer::start().on(backend).await;
        server.sim.queue(Behaviour::Refuse(Refusal::vllm(400, "Unknown parameter: 'encoding_format'")));
        server.sim.script_all(vectors(&json!([item(0, json!([1.0, -0.25])), item(1, json!([0.5, 2.0]))])));
        for calls in [2, 3] {
            let answer = server.post("/v1/embeddings", asked(&json!("base64"))).await.ok();
            assert_eq!((&answer["data"][1]["embedding"], server.sim.calls()), (&json!(BASE64[1]), calls));
        }
        assert_eq!(spent(&server).await, 2 * cost("0.01", 3));
        server.stop().await;
    }

    async fn vectors_stand_where_their_inputs_do(backend) {
        let server = TestServer::start().on(backend).await;
        let ordered = json!([item(0, json!([1.0])), item(1, json!([2.0]))]);
        for odd in [
            json!([item(1, json!([2.0])), item(0, json!([1.0]))]),
            json!([{ "object": "embedding", "embedding": [1.0] }, { "object": "embedding", "embedding": [2.0] }]),
        ] {
            server.sim.script_all(vectors(&odd));
            assert_eq!(server.post("/v1/embeddings", asked(&Value::Null)).await.ok()["data"], ordered, "{odd}");
        }
        server.stop().await;
    }

    async fn vectors_that_are_missing_are_a_failure_and_not_charged(backend) {
        let server = TestServer::start().on(backend).with_second_sim().with_worker().await;
        let one = vectors(&json!([item(0, json!([1.0]))]));
        server.sim.script_all(one.clone());
        let other = server.other_sim.as_ref().unwrap();
        for _ in 0..3 {
            let answer = server.post("/v1/embeddings", asked(&Value::Null)).await.ok();
            assert_eq!(answer["data"].as_array().unwrap().len(), 2);
        }
        assert!(server.sim.calls() > 0 && other.calls() == 3, "the other one is asked");
        assert_eq!(spent(&server).await, 3 * cost("0.01", 2));
        other.script_all(one);
        server.post("/v1/embeddings", asked(&Value::Null)).await.error(StatusCode::BAD_GATEWAY, "upstream_error");
        assert_eq!(spent(&server).await, 3 * cost("0.01", 2));
        server.stop().await;
    }

    async fn token_ids_are_refused_or_read_as_openai_s(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let asked = |model: &str, input: Value| json!({ "model": model, "input": input });
        for ids in [json!([9906, 1917]), json!([[9906], [1917]])] {
            let error = server.post("/v1/embeddings", asked("embed-model", ids)).await;
            let error = error.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert_eq!(error["param"], "input");
            assert!(error["message"].as_str().unwrap().contains("check_embedding_ctx_length=False"), "{error}");
        }
        assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
        // Two texts, of one word each; as one, of two.
        for (ids, texts) in [
            (json!([[9906], [1917]]), json!(["Hello", " world"])),
            (json!([9906, 1917]), json!("Hello world")),
        ] {
            let answer = server.post("/v1/embeddings", asked("embed-ids-model", ids)).await.ok();
            assert_eq!(answer["usage"]["prompt_tokens"], 2);
            let sent: Value = serde_json::from_slice(&server.sim.requests().last().unwrap().body).unwrap();
            assert_eq!(sent["input"], texts);
        }
        assert_eq!(spent(&server).await, 2 * cost("0.01", 2));
        let error = server.post("/v1/embeddings", asked("embed-ids-model", json!([[1], [100_256]]))).await;
        assert_eq!(error.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "input[1]");
        let task = json!({ "custom_id": "a", "model": "embed-model", "request_body": { "input": [9906] } });
        let refused = server.post("/v1/batches", json!({ "tasks": [task] })).await;
        let error = refused.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert!(error["message"].to_string().contains("check_embedding_ctx_length"), "{error}");
        server.stop().await;
    }

    async fn a_batch_has_vectors_as_its_lines_ask(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let task = |id: &str, format: &str| {
            json!({ "custom_id": id, "model": "embed-model", "request_body": { "input": "a", "encoding_format": format } })
        };
        let tasks = json!([task("a", "float"), task("b", "base64")]);
        let made = server.post("/v1/batches", json!({ "tasks": tasks })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        let vector = |at: usize| &batch["tasks"][at]["result"]["data"][0]["embedding"];
        assert_eq!(vector(0), &json!([0.5, -0.25, 0.125, 0.0, 1.0, -1.0, 0.75, -0.5]));
        assert_eq!(vector(1), "AAAAPwAAgL4AAAA+AAAAAAAAgD8AAIC/AABAPwAAAL8=");
        let odd = server.post("/v1/batches", json!({ "tasks": [task("a", "int8")] })).await;
        odd.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.stop().await;
    }
}
