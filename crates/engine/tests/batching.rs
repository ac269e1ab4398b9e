//! Many requests at once: shared prefixes, classes, bounds, and slots that come free when clients go away.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use batchin_engine::ModelKind;
use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use support::{CHAT, Engine, ask, model, post_request, text_of};

const CHAT_PATH: &str = "/v1/chat/completions";
const QUESTIONS: [&str; 8] = [
    "Name the capital of France.",
    "Name the capital of Italy.",
    "What is two plus two?",
    "Say hello in French.",
    "Write a sentence about rain.",
    "Name three colours.",
    "What do cows drink?",
    "Who wrote Hamlet?",
];

async fn one_slot(waiting_limit: usize) -> Engine {
    let mut chat = model(CHAT, ModelKind::Generate);
    chat.slots = 1;
    Engine::start(vec![chat], |options| options.waiting_limit = waiting_limit).await
}

/// As the gateway asks for work of a class.
fn of_class(class: &'static str, body: &Value) -> Request<Full<Bytes>> {
    let mut request = post_request(CHAT_PATH, body.to_string().into());
    request.headers_mut().insert("x-batchin-class", HeaderValue::from_static(class));
    request
}

fn endless() -> Value {
    let mut question = ask("Tell me a very long story.", 3000);
    question["ignore_eos"] = json!(true);
    question
}

/// A stream whose first bytes have arrived, so that it certainly has a slot.
async fn running(engine: &Engine, class: &'static str, body: &Value) -> hyper::body::Incoming {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let response = engine.send(of_class(class, &body)).await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    stream.frame().await.unwrap().unwrap();
    stream
}

/// Batched matrix products round differently from single ones, so two tokens that the model finds equally likely may
/// come out the other way round. Most answers must be equal to the letter, and all must begin alike.
#[tokio::test]
async fn eight_at_once_answer_as_they_do_alone() {
    let engine = Engine::chat().await;
    let mut alone = Vec::new();
    for question in QUESTIONS {
        alone.push(engine.post(CHAT_PATH, ask(question, 16)).await);
    }
    drop(engine);
    // Another engine: what is kept of conversations lies about the cache, and the order of its cells is that of the sums.
    let engine = &Engine::chat().await;
    let together = join_all(QUESTIONS.map(|question| engine.post(CHAT_PATH, ask(question, 16)))).await;
    let same = alone.iter().zip(&together).filter(|(a, b)| text_of(a) == text_of(b)).count();
    assert!(same >= 6, "{alone:?}\n{together:?}");
    for (a, b) in alone.iter().zip(&together) {
        let word = |answer: &Value| text_of(answer).split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(word(a), word(b));
    }
}

#[tokio::test]
async fn a_common_beginning_is_computed_once() {
    let engine = Engine::chat().await;
    let story = "The river ran down from the hills past the old mill. ".repeat(20);
    let question = |end: &str| ask(&format!("{story}{end}"), 4);
    let first = engine.post(CHAT_PATH, question("Who owned the mill?")).await;
    assert!(first["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() < 30);
    let second = engine.post(CHAT_PATH, question("Where did the river run?")).await;
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached(&second) > 200, "{second}");
}

#[tokio::test]
async fn twins_that_arrive_together_share_their_beginning() {
    let engine = &Engine::chat().await;
    let story = "Every morning the baker's boy came with a cart to fetch flour. ".repeat(20);
    let ask_about = |end: &str| engine.post(CHAT_PATH, ask(&format!("{story}{end}"), 4));
    join_all(["Who came?", "With what?", "When was it?", "What for?"].map(ask_about)).await;
    let computed = engine.metric("prompt_tokens_total").await;
    let reused = engine.metric("prompt_tokens_cached_total").await;
    assert!(reused > 2.0 * computed, "computed {computed}, reused {reused}");
}

#[tokio::test]
async fn two_hundred_cancelled_requests_leave_all_slots_free() {
    let engine = Engine::chat().await;
    let bodies = (0..200).map(|i| {
        let mut body = endless();
        body["stream"] = json!(i % 2 == 0);
        body
    });
    let requests = bodies.map(|body| engine.send(post_request(CHAT_PATH, body.to_string().into())));
    // Those that stream have answered their head and wait for text; the others have nothing yet. All are dropped.
    let all = join_all(requests);
    let cut = tokio::time::timeout(std::time::Duration::from_millis(1500), all).await;
    assert!(cut.is_err(), "answers of 3000 tokens cannot be ready");
    engine.until("all slots are free", async || engine.load().await == (0, 0)).await;
    assert!(text_of(&engine.post(CHAT_PATH, ask("Name the capital of France.", 20)).await).contains("Paris"));
}

#[tokio::test]
async fn a_disconnect_in_mid_stream_frees_the_slot() {
    let engine = one_slot(4).await;
    let stream = running(&engine, "interactive", &endless()).await;
    assert_eq!(engine.load().await, (1, 0));
    drop(stream);
    engine.until("the slot is free", async || engine.load().await == (0, 0)).await;
}

#[tokio::test]
async fn an_interactive_request_goes_before_a_running_fill_which_goes_on_later() {
    let engine = one_slot(4).await;
    let mut fill = ask("Tell me about the sea.", 60);
    fill["ignore_eos"] = json!(true);
    let alone = engine.post(CHAT_PATH, fill.clone()).await;
    let mut stream = running(&engine, "fill", &fill).await;
    let urgent = engine.post(CHAT_PATH, ask("Name the capital of France.", 8)).await;
    assert!(text_of(&urgent).contains("Paris"));
    assert_eq!(engine.metric("requests_preempted_total").await, 1.0);
    let mut rest = Vec::new();
    while let Some(frame) = stream.frame().await {
        rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let said: String = rest
        .split("\n\n")
        .filter_map(|event| serde_json::from_str::<Value>(event.strip_prefix("data: ")?).ok())
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert!(text_of(&alone).ends_with(&said), "{said:?} does not end {:?}", text_of(&alone));
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let engine = &one_slot(2).await;
    let running = running(engine, "interactive", &endless()).await;
    let waiting = || engine.send(of_class("low", &endless()));
    let patient = async {
        futures::future::join(waiting(), waiting()).await;
    };
    let refused = async {
        engine.until("two wait", async || engine.load().await == (1, 2)).await;
        engine.try_post(CHAT_PATH, ask("Hi", 1)).await
    };
    tokio::select! {
        () = patient => panic!("nobody could have answered"),
        (status, answer) = refused => {
            assert_eq!((status, &answer["error"]["code"]), (503, &json!("service_unavailable")));
        }
    }
    drop(running);
    engine.until("all have left", async || engine.load().await == (0, 0)).await;
}

#[tokio::test]
async fn a_full_cache_puts_sequences_back_and_all_are_finished() {
    let mut chat = model(CHAT, ModelKind::Generate);
    (chat.context_tokens, chat.slots) = (512, 4);
    let engine = &Engine::start(vec![chat], |_| {}).await;
    let long = |question: &str| {
        let mut body = ask(question, 170);
        body["ignore_eos"] = json!(true);
        engine.post(CHAT_PATH, body)
    };
    let answers = join_all(["Tell a story.", "Describe a town.", "Write a letter."].map(long)).await;
    for answer in answers {
        assert_eq!(answer["usage"]["completion_tokens"], 170, "{}", answer["usage"]);
    }
    assert!(engine.metric("requests_preempted_total").await >= 1.0);
}
