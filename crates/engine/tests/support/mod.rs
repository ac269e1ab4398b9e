//! A running engine with real models, and a small client for its socket.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

use std::{path::PathBuf, thread, time::Duration};

use batchin_engine::{EngineOptions, ModelKind, ModelOptions, run_until};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

pub const CHAT: &str = "smollm2-135m-instruct";
pub const EMBED: &str = "all-minilm-l6-v2";

/// The file of a model. Tests need real weights; without them they fail.
pub fn weights(id: &str) -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/models");
    let folder = std::env::var_os("BATCHIN_TEST_MODELS").map_or_else(default, PathBuf::from);
    let file = folder.join(format!("{id}.gguf"));
    assert!(file.exists(), "{} is missing: `batchin models pull {id}` fetches it, as `make test` does", file.display());
    file
}

pub fn model(id: &str, kind: ModelKind) -> ModelOptions {
    ModelOptions { id: id.to_owned(), path: weights(id), kind, context_tokens: 4096, slots: 8 }
}

/// An engine in a thread of this process. Ends when dropped.
pub struct Engine {
    pub socket: PathBuf,
    _folder: TempDir,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Engine {
    /// Starts one with these models and waits until it answers.
    pub async fn start(models: Vec<ModelOptions>, adjust: impl FnOnce(&mut EngineOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let mut options = EngineOptions::new(socket.clone(), models);
        // Tests run beside each other; two engines with two threads each would wait for one another at every step.
        options.threads = Some(1);
        adjust(&mut options);
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let thread = thread::spawn(move || run_until(options, ends).unwrap());
        let engine = Self { socket, _folder: folder, stop, thread: Some(thread) };
        engine.until("the engine answers", async || UnixStream::connect(&engine.socket).await.is_ok()).await;
        engine
    }

    /// One with the chat model, and the usual bounds.
    pub async fn chat() -> Self {
        Self::start(vec![model(CHAT, ModelKind::Generate)], |_| {}).await
    }

    /// Asks until the answer is yes.
    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !condition().await {
                assert!(!self.thread.as_ref().unwrap().is_finished(), "the engine ended");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send(&self.socket, request).await
    }

    pub async fn get(&self, path: &str) -> String {
        let response = self.send(Request::get(path).header("host", "e").body(Full::default()).unwrap()).await;
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// Posts JSON and expects success.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_post(path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn try_post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.post_bytes(path, body.to_string().into()).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")))
    }

    pub async fn post_bytes(&self, path: &str, body: Bytes) -> (u16, String) {
        let response = self.send(post_request(path, body)).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Posts a streaming request and returns the JSON of all its events, which end with `[DONE]`.
    pub async fn stream(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = true.into();
        let (status, text) = self.post_bytes(path, body.to_string().into()).await;
        assert_eq!(status, 200, "{text}");
        let events: Vec<&str> =
            text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        let (last, events) = events.split_last().unwrap();
        assert_eq!(*last, "[DONE]");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// Busy slots and waiting requests.
    pub async fn load(&self) -> (u64, u64) {
        let load: Value = serde_json::from_str(&self.get("/load").await).unwrap();
        (load["slots"]["busy"].as_u64().unwrap(), load["waiting"].as_u64().unwrap())
    }

    /// A number of `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(&format!("llamacpp:{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the engine panicked");
        }
    }
}

pub async fn send(socket: &std::path::Path, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    batchin_tasks::Tasks::new().spawn("connection", |_| async { drop(connection.await) });
    sender.send_request(request).await.unwrap()
}

pub fn post_request(path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "e").header("content-type", "application/json").body(Full::new(body)).unwrap()
}

/// A greedy chat request with one user message.
pub fn ask(question: &str, max_tokens: u32) -> Value {
    json!({
        "model": CHAT, "temperature": 0, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": question}],
    })
}

pub fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}
