//! Chat and completions with a real model: what is said, how it ends, and what it is said to have used.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{CHAT, Engine, ask, text_of};

const CHAT_PATH: &str = "/v1/chat/completions";
const TEXT_PATH: &str = "/v1/completions";

fn concatenated(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn answers_sensibly_and_counts_what_it_used() {
    let engine = Engine::chat().await;
    let answer = engine.post(CHAT_PATH, ask("Name the capital of France.", 30)).await;
    assert!(text_of(&answer).contains("Paris"), "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let usage = |name: &str| answer["usage"][name].as_u64().unwrap();
    assert!((20..60).contains(&usage("prompt_tokens")), "{answer}");
    assert_eq!(usage("total_tokens"), usage("prompt_tokens") + usage("completion_tokens"));
    assert_eq!(engine.metric("tokens_predicted_total").await as u64, usage("completion_tokens"));
    assert_eq!(engine.metric("prompt_tokens_total").await as u64, usage("prompt_tokens"));
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_whole() {
    let engine = Engine::chat().await;
    let mut question = ask("Tell me about the sea.", 40);
    let whole = engine.post(CHAT_PATH, question.clone()).await;
    question["stream_options"] = json!({"include_usage": true});
    let events = engine.stream(CHAT_PATH, question).await;
    assert_eq!(concatenated(&events), text_of(&whole));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let (usage, rest) = events.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 40);
    assert!(rest.iter().all(|event| event["usage"].is_null() && event["id"] == usage["id"]));
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_stream_counts_as_it_goes_when_asked() {
    let engine = Engine::chat().await;
    let mut question = ask("Tell me about the sea.", 20);
    question["n"] = json!(2);
    question["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = engine.stream(CHAT_PATH, question).await;
    let counts = |name: &str| events.iter().map(|event| event["usage"][name].as_u64().unwrap()).collect::<Vec<_>>();
    let (prompt, completion) = (counts("prompt_tokens"), counts("completion_tokens"));
    assert!(prompt.windows(2).all(|pair| pair[0] == pair[1]), "{prompt:?}");
    assert!(completion.is_sorted() && completion[0] < 4 && completion.last() == Some(&40), "{completion:?}");
}

#[tokio::test]
async fn asked_for_no_tokens_the_prompts_are_counted() {
    let engine = Engine::chat().await;
    let request = json!({"model": CHAT, "prompt": ["one two three", "four"], "max_tokens": 0.0, "best_of": 0});
    let answer = engine.post(TEXT_PATH, request.clone()).await;
    let choice = |index: u64| json!({"index": index, "text": "", "logprobs": null, "finish_reason": "length"});
    assert_eq!(answer["choices"], json!([choice(0), choice(1)]));
    assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(3), "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert_eq!(engine.stream(TEXT_PATH, request).await.len(), 2);
}

#[tokio::test]
async fn a_text_that_was_cut_inside_of_an_emoji_is_answered() {
    let engine = Engine::chat().await;
    let body = format!(r#"{{"model":"{CHAT}","max_tokens":2,"messages":[{{"role":"user","content":"Hi \ud83d"}}]}}"#);
    let (status, text) = engine.post_bytes(CHAT_PATH, body.into()).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let engine = Engine::chat().await;
    let request = json!({"model": CHAT, "prompt": "1, 2, 3, 4, 5, 6,", "temperature": 0, "max_tokens": 40});
    let free = engine.post(TEXT_PATH, request.clone()).await["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(free.contains("9, 10"), "{free}");
    let mut stopped = request;
    stopped["stop"] = json!(["9, 1", "never"]);
    let answer = engine.post(TEXT_PATH, stopped.clone()).await;
    let until = free.split("9, 1").next().unwrap();
    assert_eq!(answer["choices"][0], json!({"index": 0, "text": until, "logprobs": null, "finish_reason": "stop"}));
    let streamed: String = engine
        .stream(TEXT_PATH, stopped)
        .await
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(streamed, until);
}

#[tokio::test]
async fn max_tokens_is_exact() {
    let engine = Engine::chat().await;
    for (max, name) in [(1, "max_tokens"), (7, "max_completion_tokens")] {
        let mut question = ask("Tell me a long story.", 1);
        question.as_object_mut().unwrap().remove("max_tokens");
        question[name] = json!(max);
        let answer = engine.post(CHAT_PATH, question).await;
        assert_eq!(answer["usage"]["completion_tokens"], max);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test]
async fn a_schema_is_followed() {
    let engine = Engine::chat().await;
    let mut question = ask("Describe a cat.", 120);
    question["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "animal", "schema": {
        "type": "object",
        "properties": {"legs": {"type": "integer", "maximum": 9}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["legs", "kind"],
        "additionalProperties": false,
    }}});
    let answer = engine.post(CHAT_PATH, question).await;
    let value: Value = serde_json::from_str(text_of(&answer)).unwrap();
    assert!(value["legs"].is_i64() && ["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{value}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn characters_are_never_split() {
    let engine = Engine::chat().await;
    let text = "größer 日本語 😀 ありがとう";
    let mut question = ask("Say it.", 100);
    question["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": {"const": text}}});
    let events = engine.stream(CHAT_PATH, question).await;
    assert_eq!(concatenated(&events), serde_json::to_string(text).unwrap());
}

#[tokio::test]
async fn several_answers_share_a_prompt_and_a_seed_repeats_them() {
    let engine = Engine::chat().await;
    let mut question = ask("Invent a name for a boat.", 12);
    question["temperature"] = json!(1.2);
    question["n"] = json!(3);
    question["seed"] = json!(7);
    let answer = engine.post(CHAT_PATH, question.clone()).await;
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect()
    };
    let first = texts(&answer);
    assert!(first.len() == 3 && first[0] != first[1] && first[1] != first[2], "{first:?}");
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt < 60, "the prompt counts once: {prompt}");
    question["seed"] = json!(8);
    assert_ne!(texts(&engine.post(CHAT_PATH, question).await), first);
}

#[tokio::test]
async fn log_probabilities_come_with_the_tokens() {
    let engine = Engine::chat().await;
    let mut question = ask("Name the capital of France.", 5);
    question["logprobs"] = json!(true);
    question["top_logprobs"] = json!(3);
    let answer = engine.post(CHAT_PATH, question).await;
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let joined: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(joined, text_of(&answer));
    for token in content {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(token["top_logprobs"][0]["token"], token["token"], "greedy takes the likeliest");
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[tokio::test]
async fn completions_take_several_prompts_and_token_ids() {
    let engine = Engine::chat().await;
    let prompts = json!(["The capital of France is", "The capital of Italy is"]);
    let answer =
        engine.post(TEXT_PATH, json!({"model": CHAT, "prompt": prompts, "temperature": 0, "max_tokens": 4})).await;
    assert!(answer["choices"][0]["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert!(answer["choices"][1]["text"].as_str().unwrap().contains("Rome"), "{answer}");
    let default = engine.post(TEXT_PATH, json!({"model": CHAT, "prompt": [504, 3575, 282], "ignore_eos": true})).await;
    assert_eq!(default["usage"]["completion_tokens"], 16, "the default of the API");
}

#[tokio::test]
async fn a_biased_token_is_never_taken() {
    let engine = Engine::chat().await;
    let request =
        json!({"model": CHAT, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 1, "logprobs": 1});
    let free = engine.post(TEXT_PATH, request.clone()).await;
    assert_eq!(free["choices"][0]["text"], " Paris");
    let mut biased = request;
    let ids: serde_json::Map<String, Value> =
        (0..49_152).filter(|id| id % 170 == 0).map(|id| (id.to_string(), json!(100))).collect();
    biased["logit_bias"] = Value::Object(ids);
    let answer = engine.post(TEXT_PATH, biased).await;
    assert_ne!(answer["choices"][0]["text"], " Paris", "{answer}");
}
