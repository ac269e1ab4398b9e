//! Speech on the engine's socket, by espeak-ng, and by a Piper voice where its files are there.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::HashSet, path::PathBuf, time::Duration};

use batchin_engine::{ModelKind, ModelOptions};
use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming};
use serde_json::{Value, json};
use support::{EMBED, Engine, model, post_request};

const PATH: &str = "/v1/audio/speech";
const ESPEAK: &str = "espeak-ng";
const JOE: &str = "piper-en-us-joe";
const HEADER: usize = 44;

fn voice(id: &str, path: PathBuf, kind: ModelKind) -> ModelOptions {
    ModelOptions { id: id.to_owned(), path, kind, context_tokens: 256, slots: 1 }
}

fn espeak() -> ModelOptions {
    voice(ESPEAK, ESPEAK.into(), ModelKind::Espeak)
}

/// The Piper voice; its source may vanish, so that it may be missing.
fn joe() -> Option<ModelOptions> {
    let folder = support::weights(EMBED).parent().unwrap().to_owned();
    let file = folder.join(format!("{JOE}.onnx"));
    file.exists().then(|| voice(JOE, file, ModelKind::Piper))
}

async fn say(engine: &Engine, body: &Value) -> Response<Incoming> {
    engine.send(post_request(PATH, body.to_string().into())).await
}

/// The pieces of a body as they came.
async fn pieces(mut response: Response<Incoming>) -> Vec<Vec<u8>> {
    assert_eq!(response.status(), 200);
    let mut pieces = Vec::new();
    while let Some(frame) = response.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap().to_vec());
    }
    pieces
}

fn seconds(pcm: usize) -> f32 {
    pcm as f32 / 2.0 / 22_050.0
}

#[tokio::test]
async fn a_text_becomes_a_wav_file_or_samples() {
    let engine = Engine::start([espeak()].into_iter().chain(joe()).collect(), |_| {}).await;
    let listed: Value = serde_json::from_str(&engine.get("/v1/models").await).unwrap();
    for entry in listed["data"].as_array().unwrap() {
        let id = entry["id"].as_str().unwrap();
        assert_eq!(entry["capabilities"], json!(["speech"]), "{entry}");
        let mut body = json!({"model": id, "input": "Hello, dear world. How are you today?", "voice": "alloy"});
        let whole = say(&engine, &body).await;
        let headers = whole.headers().clone();
        assert_eq!(
            (&headers["content-type"], &headers["x-sample-rate"]),
            (&"audio/wav".parse().unwrap(), &"22050".parse().unwrap())
        );
        assert!(!headers.contains_key("content-length"), "{id}");
        let wav = pieces(whole).await.concat();
        assert_eq!(
            (&wav[..4], &wav[4..8], &wav[8..12], &wav[40..44]),
            (&b"RIFF"[..], &[255; 4][..], &b"WAVE"[..], &[255; 4][..])
        );
        body["response_format"] = "pcm".into();
        body["speed"] = 2.into();
        body["voice"] = json!({"id": "nova"});
        let fast = say(&engine, &body).await;
        assert_eq!(fast.headers()["content-type"], "audio/pcm");
        let fast = pieces(fast).await.concat();
        // At twice the speed espeak-ng makes its pauses shorter than half.
        let took = (seconds(wav.len() - HEADER), seconds(fast.len()));
        assert!((1.0..5.0).contains(&took.0) && (1.4..3.5).contains(&(took.0 / took.1)), "{id}: {took:?}");
        assert!(wav[HEADER..].as_chunks::<2>().0.iter().any(|bytes| i16::from_le_bytes(*bytes) > 4_000), "{id}");
    }
    let names = &listed["data"][0]["voices"];
    let names: HashSet<&str> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.contains("en-us") && names.contains("fr-fr") && names.len() > 80);
}

#[tokio::test]
async fn sound_comes_in_clauses() {
    let engine = Engine::start(vec![espeak()], |_| {}).await;
    let clauses = "Here is one clause of a longer text, ".repeat(10);
    let came = pieces(say(&engine, &json!({"model": ESPEAK, "input": clauses})).await).await;
    assert!(came.len() > 3 && seconds(came[0].len()) < seconds(came.concat().len()) / 3.0, "{}", came.len());
}

#[tokio::test]
async fn what_cannot_be_said_is_refused() {
    let engine = Engine::start(vec![espeak()], |_| {}).await;
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": ESPEAK, "input": "Hello"});
        body[name] = value;
        body
    };
    let cases = [
        (with("model", json!("tts-1")), 404, "model"),
        (with("model", Value::Null), 400, "model"),
        (with("input", Value::Null), 400, "input"),
        (with("input", json!("")), 400, "input"),
        (with("input", json!("x".repeat(4097))), 400, "input"),
        (with("voice", json!("--help")), 400, "voice"),
        (with("speed", json!(5)), 400, "speed"),
        (with("speed", json!("fast")), 400, "speed"),
        (with("response_format", json!("mp3")), 400, "response_format"),
        (with("stream_format", json!("sse")), 400, "stream_format"),
    ];
    for (body, status, param) in cases {
        let (got, answer) = engine.try_post(PATH, body).await;
        assert_eq!((got, &answer["error"]["param"]), (status, &json!(param)), "{answer}");
        assert!(answer["error"]["message"].is_string() && answer["error"]["code"].is_string(), "{answer}");
    }
    let (status, _) = engine.try_post("/v1/embeddings", json!({"model": ESPEAK, "input": "Hello"})).await;
    assert_eq!(status, 404);
}

/// Long enough that nobody hears it to its end.
fn long() -> Value {
    json!({"model": ESPEAK, "input": "These are words that are said slowly. ".repeat(100), "speed": 0.25})
}

#[tokio::test]
async fn more_than_the_places_are_sent_away_and_a_dropped_connection_frees_one() {
    let engine = Engine::start(vec![espeak()], |options| options.speech_limit = 1).await;
    let held = say(&engine, &long()).await;
    assert_eq!(held.status(), 200);
    let short = json!({"model": ESPEAK, "input": "Hello"});
    let refused = say(&engine, &short).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let busy = async || engine.get("/metrics").await.contains("requests_processing{model=\"espeak-ng\"} 1");
    assert!(busy().await);
    drop(held);
    engine.until("the dropped one has ended", async || !busy().await).await;
    assert_eq!(say(&engine, &short).await.status(), 200);
}

#[tokio::test]
async fn a_voice_that_cannot_speak_is_left_out() {
    let nowhere = |id: &str, kind| voice(id, "/nonexistent/voice".into(), kind);
    let models = vec![nowhere("a", ModelKind::Espeak), nowhere("b", ModelKind::Piper), model(EMBED, ModelKind::Embed)];
    let engine = Engine::start(models, |_| {}).await;
    let listed: Value = serde_json::from_str(&engine.get("/v1/models").await).unwrap();
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [EMBED]);
    let (status, answer) = engine.try_post(PATH, json!({"model": "a", "input": "Hello"})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn speech_ends_with_the_engine() {
    let engine = Engine::start(vec![espeak()], |_| {}).await;
    let response = say(&engine, &long()).await;
    drop(response);
    let ended = tokio::task::spawn_blocking(move || drop(engine));
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
}
