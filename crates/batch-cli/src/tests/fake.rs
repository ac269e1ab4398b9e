//! Holds: a fake of the file calls, of the estimate, and of lines with `seq`, as their contract has them.
//!
//! A stand-in until the router has them: `files.rs` then runs against a `TestServer` with the same assertions.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What the fake has seen, and how it behaves.
#[derive(Default)]
pub(super) struct Book {
    pub(super) files: Vec<String>,
    pub(super) deleted: usize,
    /// The bodies of batches, each with its key.
    pub(super) batches: Vec<(String, Value)>,
    pub(super) estimates: Vec<Value>,
    pub(super) faults: Option<Value>,
    /// Uploads that are received and answered with 503.
    pub(super) busy_uploads: usize,
    pub(super) polls: u64,
}

type Shared = Arc<Mutex<Book>>;

/// A server at an address that stays its own while it is away.
pub(super) struct Fake {
    pub(super) base: String,
    pub(super) book: Shared,
    serving: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Fake {
    pub(super) async fn start(book: Book) -> Self {
        let book = Arc::new(Mutex::new(book));
        let mut fake = Self { base: "127.0.0.1:0".to_owned(), book, serving: None };
        fake.come_back().await;
        fake
    }

    /// With every connection.
    pub(super) fn go_away(&mut self) {
        let (stop, thread) = self.serving.take().unwrap();
        stop.send(()).unwrap();
        thread.join().unwrap();
    }

    pub(super) async fn come_back(&mut self) {
        let address = self.base.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(&address).await.unwrap().into_std().unwrap();
        self.base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/openai/v1/files", post(upload))
            .route("/openai/v1/files/{id}", delete(remove))
            .route("/openai/v1/batches", post(create))
            .route("/v1/batches/estimate", post(estimate))
            .route("/v1/batches/{id}", get(detail))
            .route("/v1/batches/{id}/results", get(results))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&self.book));
        let (stop, stopped) = oneshot::channel();
        // A runtime of its own takes its connections with it.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let serving = axum::serve(TcpListener::from_std(listener).unwrap(), router).into_future();
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        self.serving = Some((stop, thread));
    }

    pub(super) fn polls(&self) -> u64 {
        self.book.lock().unwrap().polls
    }
}

async fn upload(State(book): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut book = book.lock().unwrap();
    if book.busy_uploads > 0 {
        book.busy_uploads -= 1;
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response();
    }
    assert_eq!(headers["content-length"].to_str().unwrap().parse::<usize>().unwrap(), body.len());
    let text = String::from_utf8(body.to_vec()).unwrap();
    let boundary = text.lines().next().unwrap().to_owned();
    let parts: Vec<&str> = text.split(&boundary).collect();
    assert!(parts[1].contains("name=\"purpose\"") && parts[1].ends_with("batch\r\n"), "{}", parts[1]);
    assert!(parts[2].contains("name=\"file\"; filename=\"batch.jsonl\""));
    let (_, content) = parts[2].split_once("\r\n\r\n").unwrap();
    book.files.push(content.trim_end_matches("\r\n").to_owned());
    let id = format!("file-{}", book.files.len() - 1);
    Json(json!({ "id": id, "object": "file", "bytes": content.len(), "purpose": "batch" })).into_response()
}

async fn remove(State(book): State<Shared>) -> Json<Value> {
    book.lock().unwrap().deleted += 1;
    Json(json!({ "deleted": true }))
}

async fn create(State(book): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    let mut book = book.lock().unwrap();
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    if !book.batches.iter().any(|(seen, _)| *seen == key) {
        book.batches.push((key, body));
    }
    Json(json!({ "id": "batch_01890a5d-ac96-774b-bcce-b302099a8057", "status": "validating" }))
}

async fn estimate(State(book): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    book.lock().unwrap().estimates.push(body);
    let model =
        json!({ "model": "m", "tasks": 3, "input_tokens": 12, "max_cost_cents": 0.5, "expected_cost_cents": 0.1 });
    Json(json!({
        "total_tasks": 3, "input_tokens": 12, "max_cost_cents": 0.5, "expected_cost_cents": 0.1, "by_model": [model],
    }))
}

fn total(book: &Book) -> u64 {
    u64::try_from(book.files.last().map_or(0, |file| file.lines().count())).unwrap()
}

/// A tenth more of the tasks has ended at each look.
async fn detail(State(book): State<Shared>) -> Json<Value> {
    let mut book = book.lock().unwrap();
    book.polls += 1;
    if let Some(faults) = &book.faults {
        return Json(json!({ "id": "x", "status": "failed", "total_tasks": 0, "faults": faults }));
    }
    let (total, done) = (total(&book), ended(&book));
    let status = if done == total { "completed" } else { "in_progress" };
    Json(json!({
        "id": "x", "status": status, "total_tasks": total, "completed_tasks": done, "failed_tasks": 0,
        "input_tokens": 2 * done, "output_tokens": done, "cost_cents": 0.25, "blocked": null,
    }))
}

fn ended(book: &Book) -> u64 {
    (total(book) * book.polls / 10).min(total(book))
}

/// The last task ends first. Without a cursor in the order of the batch, after one in the order of the ends.
async fn results(
    State(book): State<Shared>,
    Path(_): Path<String>,
    Query(query): Query<std::collections::HashMap<String, u64>>,
) -> String {
    let book = book.lock().unwrap();
    let (total, ended) = (total(&book), ended(&book));
    let names: Vec<Value> =
        book.files.last().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |seq: u64| {
        let index = total - seq;
        let name = &names[usize::try_from(index).unwrap()]["custom_id"];
        json!({ "custom_id": name, "index": index, "seq": seq, "status": "completed", "cost_cents": 0.01 }).to_string()
            + "\n"
    };
    match query.get("after") {
        Some(after) => (after + 1..=ended).map(line).collect(),
        None => (1..=ended).rev().map(line).collect(),
    }
}
