//! Sentence embeddings with a real model.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_engine::ModelKind;
use serde_json::{Value, json};
use support::{EMBED, Engine, model};

const PATH: &str = "/v1/embeddings";

async fn engine() -> Engine {
    Engine::start(vec![model(EMBED, ModelKind::Embed)], |_| {}).await
}

async fn vectors(engine: &Engine, input: Value) -> Vec<Vec<f32>> {
    let answer = engine.post(PATH, json!({"model": EMBED, "input": input})).await;
    let data = answer["data"].as_array().unwrap();
    data.iter().map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn alike_sentences_are_near_and_vectors_have_length_one() {
    let input =
        json!(["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose by a quarter point."]);
    let found = vectors(&engine().await, input).await;
    assert!(found.iter().all(|v| v.len() == 384 && (cosine(v, v) - 1.0).abs() < 1e-4));
    let (near, far) = (cosine(&found[0], &found[1]), cosine(&found[0], &found[2]));
    assert!(near > 0.5 && far < 0.2, "near {near}, far {far}");
}

#[tokio::test]
async fn base64_holds_the_same_numbers() {
    let engine = engine().await;
    let float = vectors(&engine, json!("hello")).await;
    let answer = engine.post(PATH, json!({"model": EMBED, "input": "hello", "encoding_format": "base64"})).await;
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(decoded, float[0]);
    assert_eq!(answer["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
}

#[tokio::test]
async fn many_inputs_keep_their_order_and_their_vectors() {
    let engine = engine().await;
    let texts: Vec<String> = (0..100).map(|i| format!("Sentence {i} {}", "about rivers ".repeat(i % 13))).collect();
    let together = vectors(&engine, json!(texts)).await;
    for i in [0, 31, 32, 99] {
        let alone = vectors(&engine, json!(texts[i])).await;
        assert!(cosine(&alone[0], &together[i]) > 0.999, "input {i}");
    }
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused() {
    let engine = engine().await;
    let cases = [
        (json!("word ".repeat(600)), "input", "context_length_exceeded"),
        (json!(["ok", "word ".repeat(600)]), "input[1]", "context_length_exceeded"),
        (json!([1, 2, 3]), "input", "invalid_request"),
        (json!([[1, 2], [3]]), "input", "invalid_request"),
        (json!([]), "input", "invalid_request"),
        (json!(""), "input", "invalid_request"),
    ];
    for (input, param, code) in cases {
        let (status, answer) = engine.try_post(PATH, json!({"model": EMBED, "input": input})).await;
        assert_eq!(
            (status, &answer["error"]["param"], &answer["error"]["code"]),
            (400, &json!(param), &json!(code)),
            "{answer}"
        );
    }
    let (status, answer) = engine.try_post(PATH, json!({"model": EMBED, "input": "a", "dimensions": 64})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("dimensions")));
    let (_, answer) = engine.try_post(PATH, json!({"model": EMBED, "input": [[1]]})).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("Send text instead"), "{answer}");
}
