//! What the engine does not do, it refuses with OpenAI's error object, naming the field.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{CHAT, Engine, ask};

const CHAT_PATH: &str = "/v1/chat/completions";
const TEXT_PATH: &str = "/v1/completions";

#[tokio::test]
async fn refusals_name_the_field() {
    let engine = Engine::chat().await;
    let with = |name: &str, value: Value| {
        let mut question = ask("Hi", 4);
        question[name] = value;
        question
    };
    let cases = [
        (CHAT_PATH, with("model", json!("nope")), 404, "model", "model_not_found"),
        (CHAT_PATH, with("messages", json!([])), 400, "messages", "invalid_request"),
        (
            CHAT_PATH,
            with("messages", json!([{"role": "wizard", "content": "x"}])),
            400,
            "messages[0].role",
            "invalid_request",
        ),
        (CHAT_PATH, with("temperature", json!("hot")), 400, "temperature", "invalid_request"),
        (CHAT_PATH, with("temperature", json!(3)), 400, "temperature", "invalid_request"),
        (CHAT_PATH, with("n", json!(9)), 400, "n", "invalid_request"),
        (CHAT_PATH, with("max_tokens", json!(0)), 400, "max_tokens", "invalid_request"),
        (CHAT_PATH, with("response_format", json!({"type": "xml"})), 400, "response_format.type", "invalid_request"),
        (CHAT_PATH, with("tools", json!([{"function": {"name": "f"}}])), 400, "tools", "invalid_request"),
        (
            CHAT_PATH,
            with("messages", json!([{"role": "user", "content": "word ".repeat(5000)}])),
            400,
            "messages",
            "context_length_exceeded",
        ),
        (TEXT_PATH, json!({"model": CHAT, "prompt": "a", "suffix": "b"}), 400, "suffix", "invalid_request"),
        (TEXT_PATH, json!({"model": CHAT}), 400, "prompt", "invalid_request"),
        (TEXT_PATH, json!({"model": CHAT, "prompt": [1, 99_999_999]}), 400, "prompt", "invalid_request"),
        ("/v1/embeddings", json!({"model": CHAT, "input": "a"}), 404, "model", "model_not_found"),
    ];
    for (path, body, status, param, code) in cases {
        let (got, answer) = engine.try_post(path, body).await;
        let error = &answer["error"];
        assert_eq!((got, &error["param"], &error["code"]), (status, &json!(param), &json!(code)), "{answer}");
        assert!(error["message"].is_string() && error["type"].is_string(), "{answer}");
    }
    assert_eq!(engine.load().await, (0, 0));
}

#[tokio::test]
async fn the_limit_is_named_when_a_prompt_is_too_long() {
    let engine = Engine::chat().await;
    let (_, answer) = engine.try_post(CHAT_PATH, ask(&"word ".repeat(5000), 4)).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("4096 tokens"), "{answer}");
}

#[tokio::test]
async fn bodies_must_be_json_and_of_bounded_size() {
    let engine = Engine::chat().await;
    let (status, text) = engine.post_bytes(CHAT_PATH, "{\"model\": oops}".into()).await;
    assert_eq!(status, 400);
    assert!(text.contains("line 1 column 11"), "{text}");
    let (status, text) = engine.post_bytes(CHAT_PATH, vec![b' '; 17 << 20].into()).await;
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("payload_too_large"), "{text}");
}

#[tokio::test]
async fn paths_and_methods_are_checked() {
    let engine = Engine::chat().await;
    assert_eq!(engine.try_post("/v1/nothing", json!({})).await.0, 404);
    assert_eq!(engine.try_post("/health", json!({})).await.0, 405);
    assert!(engine.get("/health").await.contains("ok"));
    let models: Value = serde_json::from_str(&engine.get("/v1/models").await).unwrap();
    assert_eq!(models["data"][0]["id"], CHAT);
    assert_eq!(models["data"][0]["context_length"], 4096);
}
