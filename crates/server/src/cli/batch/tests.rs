//! Holds: a batch run against a scripted server over real sockets.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;

/// What a scripted server does wrong, and what it saw.
#[derive(Default)]
struct Script {
    lose_first_answer: bool,
    busy_polls: usize,
    never_ends: bool,
    fail_last_task: bool,
    seen_keys: Vec<String>,
    batches: Vec<Vec<Value>>,
    polls: usize,
    cancelled: usize,
}

type Shared = Arc<Mutex<Script>>;

async fn create(State(script): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> impl IntoResponse {
    let mut script = script.lock().unwrap();
    assert_eq!(headers["authorization"], "Bearer batchin_api_test");
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let id = match script.seen_keys.iter().position(|seen| *seen == key) {
        Some(index) => index,
        None => {
            script.seen_keys.push(key);
            script.batches.push(body["tasks"].as_array().unwrap().clone());
            script.batches.len() - 1
        }
    };
    if std::mem::take(&mut script.lose_first_answer) {
        return (StatusCode::BAD_GATEWAY, Json(json!({ "error": { "message": "lost" } })));
    }
    (StatusCode::OK, Json(json!({ "id": format!("b{id}"), "status": "pending" })))
}

fn index(id: &str) -> usize {
    id.trim_start_matches('b').parse().unwrap()
}

async fn detail(State(script): State<Shared>, Path(id): Path<String>) -> impl IntoResponse {
    let mut script = script.lock().unwrap();
    script.polls += 1;
    if script.busy_polls > 0 {
        script.busy_polls -= 1;
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], Json(json!({})));
    }
    let Some(tasks) = script.batches.get(index(&id)) else {
        let error = json!({ "error": { "message": "no such batch", "code": "not_found" } });
        return (StatusCode::NOT_FOUND, [("x", "y")], Json(error));
    };
    let total = tasks.len();
    let failed = usize::from(script.fail_last_task);
    let is_done = script.cancelled > 0 || !script.never_ends;
    let each = json!({ "status": "completed", "cost_cents": 0.00076, "usage": { "prompt_tokens": 3, "completion_tokens": 4 } });
    let body = json!({
        "id": id, "status": if script.cancelled > 0 { "cancelled" } else if is_done { "completed" } else { "in_progress" },
        "total_tasks": total, "completed_tasks": total - failed, "failed_tasks": failed, "tasks": vec![each; total],
    });
    (StatusCode::OK, [("x", "y")], Json(body))
}

async fn results(State(script): State<Shared>, Path(id): Path<String>) -> String {
    let script = script.lock().unwrap();
    let line = |task: &Value| {
        let response = json!({ "choices": [{ "message": { "content": format!("answer to {}", task["custom_id"]) } }] });
        json!({ "custom_id": task["custom_id"], "status": "completed", "result": response }).to_string() + "\n"
    };
    script.batches[index(&id)].iter().map(line).collect()
}

async fn cancel(State(script): State<Shared>) -> Json<Value> {
    script.lock().unwrap().cancelled += 1;
    Json(json!({ "status": "cancelled" }))
}

async fn start(script: Script) -> (Environment, Shared) {
    let script = Arc::new(Mutex::new(script));
    let router = Router::new()
        .route("/v1/batches", post(create))
        .route("/v1/batches/{id}", get(detail))
        .route("/v1/batches/{id}/results", get(results))
        .route("/v1/batches/{id}/cancel", post(cancel))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(script.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1/", listener.local_addr().unwrap());
    tokio::task::spawn_local(async move { axum::serve(listener, router).await.unwrap() });
    let variables = [("BATCHIN_BASE_URL", base.as_str()), ("BATCHIN_API_KEY", "batchin_api_test")];
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    (environment, script)
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in.jsonl"), text).unwrap();
        Self { folder }
    }

    fn run(&self, to_file: bool) -> BatchRun {
        let out = to_file.then(|| self.folder.path().join("out.jsonl"));
        let delivery = Delivery { out, json: false };
        BatchRun { file: self.folder.path().join("in.jsonl"), model: Some("m".to_owned()), priority: None, delivery }
    }

    fn results(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("out.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn local<T>(work: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(work).await
}

async fn run_quietly(run: &BatchRun, environment: &Environment) -> (Result<Outcome, BatchError>, String) {
    let mut out = Vec::new();
    let outcome = super::run(run, environment, Terminal { out: &mut out, is_interactive: false }).await;
    (outcome, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_file_is_run_and_its_answers_are_printed() {
    local(async {
        let (environment, _) = start(Script::default()).await;
        let files = Files::with("{\"prompt\":\"x\"}\n{\"prompt\":\"y\",\"custom_id\":\"why\"}\n");
        let (outcome, printed) = run_quietly(&files.run(false), &environment).await;
        assert_eq!(outcome.unwrap(), Outcome::Done);
        assert_eq!(printed, "line-1: answer to \"line-1\"\nwhy: answer to \"why\"\n");
    })
    .await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_creates_nothing_twice() {
    local(async {
        let (environment, script) = start(Script { lose_first_answer: true, busy_polls: 3, ..Script::default() }).await;
        let files = Files::with("{\"prompt\":\"x\"}\n");
        let (outcome, _) = run_quietly(&files.run(true), &environment).await;
        assert_eq!(outcome.unwrap(), Outcome::Done);
        assert_eq!(script.lock().unwrap().batches.len(), 1);
        assert_eq!(files.results().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_large_file_becomes_several_batches_and_one_result() {
    local(async {
        let (environment, script) = start(Script::default()).await;
        let line = format!("{{\"prompt\":\"{}\"}}\n", "x".repeat(400_000));
        let files = Files::with(&line.repeat(11));
        let (outcome, _) = run_quietly(&files.run(true), &environment).await;
        assert_eq!(outcome.unwrap(), Outcome::Done);
        let sizes: Vec<usize> = script.lock().unwrap().batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 3]);
        let ids: Vec<Value> = files.results().iter().map(|result| result["custom_id"].clone()).collect();
        assert_eq!(ids, (1..=11).map(|line| json!(format!("line-{line}"))).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_failed_task_fails_the_run_and_a_fault_sends_nothing() {
    local(async {
        let (environment, script) = start(Script { fail_last_task: true, ..Script::default() }).await;
        let (outcome, _) = run_quietly(&Files::with("{\"prompt\":\"x\"}\n").run(true), &environment).await;
        assert_eq!(outcome.unwrap(), Outcome::Failed);
        let before = script.lock().unwrap().seen_keys.len();
        let (outcome, _) = run_quietly(&Files::with("{\"prompt\":\"x\"}\n{\n").run(true), &environment).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Misused);
        assert!(error.to_string().contains("in.jsonl:2: is not valid JSON"), "{error}");
        assert_eq!(script.lock().unwrap().seen_keys.len(), before);
        let (outcome, _) = run_quietly(&Files::with("{\"prompt\":\"x\"}\n").run(true), &Environment::default()).await;
        assert!(matches!(outcome, Err(BatchError::NoKey)));
    })
    .await;
}

#[tokio::test]
async fn watching_an_unknown_batch_is_refused_in_the_servers_words() {
    local(async {
        let (environment, _) = start(Script::default()).await;
        let watch = BatchWatch { ids: vec!["b7".to_owned()], delivery: Delivery { out: None, json: true } };
        let error = super::watch(&watch, &environment, Terminal { out: &mut Vec::new(), is_interactive: false })
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the server refused with 404: no such batch");
    })
    .await;
}

/// nextest gives each test its own process, so the signal reaches nobody else.
#[tokio::test]
async fn an_interrupt_without_a_terminal_leaves_the_batch_running() {
    local(async {
        let (environment, script) = start(Script { never_ends: true, ..Script::default() }).await;
        let files = Files::with("{\"prompt\":\"x\"}\n");
        let interrupted = script.clone();
        tokio::task::spawn_local(async move {
            while interrupted.lock().unwrap().polls < 2 {
                tokio::task::yield_now().await;
            }
            let own = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-INT", &own]).status().unwrap().success());
        });
        let (outcome, printed) = run_quietly(&files.run(false), &environment).await;
        assert_eq!((outcome.unwrap(), printed.as_str()), (Outcome::Failed, ""));
        assert_eq!(script.lock().unwrap().cancelled, 0);
    })
    .await;
}
