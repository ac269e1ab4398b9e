//! Holds: what clients meet on a started server with the real small models behind it: the official packages, the
//! command line, an engine that dies, and the description of the API.

#![cfg(feature = "engine")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

const CHAT: &str = "smollm2-135m-instruct";
const EMBED: &str = "all-minilm-l6-v2";

/// A whole run of a package's checks, which takes some ten seconds on two undisturbed cores.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(150);
/// What must happen soon, such as loading the models, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets webhooks go to receivers on this machine, and names a proxy that does not answer: they must not use it.
const LOCAL_WEBHOOKS: &[(&str, &str)] = &[
    ("BATCHIN_WEBHOOKS__ALLOW_HTTP", "true"),
    ("BATCHIN_WEBHOOKS__ALLOW_CIDRS", "127.0.0.0/8"),
    ("http_proxy", "http://127.0.0.1:1"),
    ("no_proxy", ""),
    ("NO_PROXY", ""),
];

/// What was credited to the account that most tests spend from, in cents.
const CREDIT_CENTS: i64 = 500;
const NANOS_PER_CENT: f64 = 1e7;

/// A server process of its own, with its own folder. Killed when dropped; its engine ends with it.
struct Server {
    process: Child,
    url: String,
    key: String,
    http: Client,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already, or about to be.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// What `make test` prepares.
fn prepared(name: &str) -> PathBuf {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{name} is not set: this test needs what `make test` prepares; run it with that"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until there is something to see.
async fn until<T>(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < patience, "{what}: not within {patience:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

impl Server {
    /// With the real models, one user with credit, and a key that no rate limit holds up.
    async fn with_models() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::os::unix::fs::symlink(prepared("BATCHIN_TEST_MODELS"), folder.path().join("data/models")).unwrap();
        let mut server = Self::start(folder, LOCAL_WEBHOOKS);
        for model in [CHAT, EMBED] {
            until("the engine serves", PATIENCE, async || server.serves(model).await.then_some(())).await;
        }
        server.key = server.key_of("rich", CREDIT_CENTS, 1_000_000);
        server
    }

    /// Without any model.
    fn without_models() -> Self {
        Self::start(TempDir::new().unwrap(), &[("BATCHIN_ENGINE__ENABLED", "false")])
    }

    fn start(folder: TempDir, environment: &[(&str, &str)]) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        let mut process = Self::command(&folder)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(PATIENCE * 2).build().unwrap();
        let server = Self { process, url, key: String::new(), http, folder };
        assert!(!server.url.is_empty(), "the server said {line:?} and\n{}", server.log());
        server
    }

    fn command(folder: &TempDir) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchin"));
        command.arg("--data").arg(folder.path().join("data"));
        command
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        text(&log[log.len().saturating_sub(8_000)..])
    }

    /// Runs a command beside the server, as a client of it where it is one.
    fn run(&self, arguments: &[&str]) -> Output {
        Self::command(&self.folder)
            .args(arguments)
            .env("BATCHIN_BASE_URL", &self.url)
            .env("BATCHIN_API_KEY", &self.key)
            .output()
            .unwrap()
    }

    /// What a command that must succeed prints.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn key_of(&self, name: &str, cents: i64, rpm: u32) -> String {
        let email = format!("{name}@example.org");
        self.says(&["user", "create", &email]);
        if cents > 0 {
            self.says(&["credits", "grant", &email, &cents.to_string(), "--reason", "test"]);
        }
        self.says(&["key", "create", &email, "--rpm", &rpm.to_string()])
    }

    async fn serves(&self, model: &str) -> bool {
        let url = format!("{}/v1/models/{model}", self.url);
        let Ok(response) = self.http.get(url).send().await else { return false };
        response.json::<Value>().await.is_ok_and(|model| model["status"] == "always_on")
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// Begins a stream that goes on until somebody ends it.
    async fn long_stream(&self) -> reqwest::Result<reqwest::Response> {
        let body = json!({ "model": CHAT, "stream": true, "max_tokens": 1_500, "ignore_eos": true,
            "stream_options": { "include_usage": true, "continuous_usage_stats": true },
            "messages": [{ "role": "user", "content": "Tell a long story." }] });
        let url = format!("{}/v1/chat/completions", self.url);
        self.http.post(url).bearer_auth(&self.key).json(&body).send().await
    }

    /// The engine's process.
    fn engine(&self) -> Option<u32> {
        let own = self.process.id();
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        processes.filter_map(|name| name.parse::<u32>().ok()).find(|id| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // The name stands in brackets and may hold anything; state and parent follow it.
            let mut after = stat.rsplit_once(')').map_or("", |(_, after)| after).split_whitespace();
            after.next().is_some_and(|state| state != "Z") && after.next() == Some(&own.to_string())
        })
    }

    /// What the engine says on its own socket.
    fn engine_load(&self) -> Value {
        let mut socket = UnixStream::connect(self.folder.path().join("data/engine.sock")).unwrap();
        socket.write_all(b"GET /load HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Everything adds up, and what was leased goes back once nobody spends.
    async fn settles(&self) {
        until("leases go back", PATIENCE, async || {
            let report: Value = serde_json::from_str(&self.says(&["ledger", "check", "--json"])).unwrap();
            assert_eq!(report["ok"], true, "{report}");
            assert_eq!(report["late_nano"], "0", "{report}");
            (report["leased_nano"] == "0").then_some(())
        })
        .await;
        let balance = self.get("/v1/users/me").await["credit_balance_cents"].as_f64().unwrap();
        let spent = self.get("/v1/usage/summary").await["total_cost_cents"].as_f64().unwrap();
        assert_eq!(nanos(balance) + nanos(spent), nanos(CREDIT_CENTS as f64));
    }
}

fn nanos(cents: f64) -> i64 {
    (cents * NANOS_PER_CENT).round() as i64
}

/// Runs the checks of one package.
async fn check_package(program: &Path, script: &str) {
    let server = Server::with_models().await;
    let run = tokio::process::Command::new(program)
        .arg(root().join("tests/sdk").join(script))
        .env("SDK_URL", &server.url)
        .env("SDK_KEY", &server.key)
        .env("SDK_POOR_KEY", server.key_of("poor", 0, 1_000))
        .env("SDK_LIMITED_KEY", server.key_of("limited", 100, 2))
        .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
        .kill_on_drop(true)
        .output();
    let run = timeout(SCRIPT_PATIENCE, run).await.expect("the checks take too long").unwrap();
    assert!(run.status.success(), "{}{}\n{}", text(&run.stdout), text(&run.stderr), server.log());
    server.settles().await;
}

#[tokio::test]
async fn the_official_python_package_works() {
    check_package(&prepared("BATCHIN_TEST_PYTHON"), "openai_python.py").await;
}

#[tokio::test]
async fn the_official_node_package_works() {
    check_package(Path::new("node"), "openai_node.mjs").await;
}

/// The engine's voice, made into mp3, as a recogniser that we did not write hears it. Without the network's voice, whose source
/// may vanish, the program's.
#[tokio::test]
async fn what_is_spoken_is_heard() {
    const SAID: &str = "Good morning. Please open the window and close the door.";
    let server = Server::with_models().await;
    let models = server.get("/v1/models").await;
    let has = |id: &str| models["data"].as_array().unwrap().iter().any(|model| model["id"] == id);
    let voice = if has("piper-en-us-joe") { "piper-en-us-joe" } else { "espeak-ng" };
    let body = json!({ "model": voice, "input": SAID, "response_format": "mp3" });
    let spoken = server.http.post(format!("{}/v1/audio/speech", server.url)).bearer_auth(&server.key).json(&body);
    let spoken = spoken.send().await.unwrap();
    assert_eq!(spoken.status(), StatusCode::OK, "{voice}");
    let sound = server.folder.path().join("spoken.mp3");
    std::fs::write(&sound, spoken.bytes().await.unwrap()).unwrap();
    let hearing = tokio::process::Command::new(prepared("BATCHIN_TEST_PYTHON"))
        .arg(root().join("tests/sdk/heard_python.py"))
        .env("SDK_SOUND", &sound)
        .kill_on_drop(true)
        .output();
    let heard = timeout(SCRIPT_PATIENCE, hearing).await.expect("hearing takes too long").unwrap();
    assert!(heard.status.success(), "{}", text(&heard.stderr));
    let words = |text: &str| {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words(&text(&heard.stdout)), words(SAID), "{voice}");
    server.settles().await;
}

#[tokio::test]
async fn responses_work_in_python() {
    check_package(&prepared("BATCHIN_TEST_PYTHON"), "responses_python.py").await;
}

#[tokio::test]
async fn anthropic_s_python_package_works() {
    check_package(&prepared("BATCHIN_TEST_PYTHON"), "anthropic_python.py").await;
}

#[tokio::test]
async fn responses_and_messages_work_in_node() {
    check_package(Path::new("node"), "agents_node.mjs").await;
}

#[tokio::test]
async fn the_official_python_packages_verify_webhooks() {
    check_package(&prepared("BATCHIN_TEST_PYTHON"), "webhooks_python.py").await;
}

#[tokio::test]
async fn the_official_node_packages_verify_webhooks() {
    check_package(Path::new("node"), "webhooks_node.mjs").await;
}

/// The events of a stream, as far as it was read.
#[derive(Default)]
struct Seen {
    text: String,
}

impl Seen {
    /// Reads on; false at the end.
    async fn read(&mut self, response: &mut reqwest::Response) -> bool {
        let chunk =
            timeout(PATIENCE, response.chunk()).await.expect("the stream hangs").expect("the stream breaks off");
        self.text.push_str(&text(&chunk.clone().unwrap_or_default()));
        chunk.is_some()
    }

    fn events(&self) -> Vec<Value> {
        let data = self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    /// The tokens that the last chunk tells: more than deltas where a token is part of a character.
    fn tokens(&self) -> u64 {
        self.events().iter().rev().find_map(|event| event["usage"]["completion_tokens"].as_u64()).unwrap_or(0)
    }

    fn deltas(&self) -> u64 {
        let has_text =
            |event: &&Value| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
        self.events().iter().filter(has_text).count() as u64
    }
}

#[tokio::test]
async fn an_engine_that_is_killed_in_the_middle_of_four_streams_harms_nothing_else() {
    let mut server = Server::with_models().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let response = server.long_stream().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        streams.push((response, Seen::default()));
    }
    for (response, seen) in &mut streams {
        while seen.deltas() < 3 {
            assert!(seen.read(response).await, "ended by itself: {}", seen.text);
        }
    }
    let engine = server.engine().expect("an engine runs");
    assert!(Command::new("kill").args(["-9", &engine.to_string()]).status().unwrap().success());

    let mut delivered = Vec::new();
    for (response, seen) in &mut streams {
        while seen.read(response).await {}
        let last = seen.events().pop().unwrap();
        assert_eq!(last["error"]["code"], "upstream_error", "{}", seen.text);
        assert!(!seen.text.contains("[DONE]"), "an answer that broke off looks whole: {}", seen.text);
        assert!(seen.tokens() >= seen.deltas(), "{}", seen.text);
        delivered.push(seen.tokens());
    }
    assert!(server.process.try_wait().unwrap().is_none(), "the server ended with its engine");
    server.get("/healthz").await;

    let ask = json!({ "model": CHAT, "max_tokens": 4, "messages": [{ "role": "user", "content": "Hello" }] });
    until("the engine is back", PATIENCE, async || {
        let url = format!("{}/v1/chat/completions", server.url);
        let response = server.http.post(url).bearer_auth(&server.key).json(&ask).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
        if status.is_server_error() {
            assert!([502, 503].contains(&status.as_u16()) && body["error"]["message"].is_string(), "{status} {body}");
            return None;
        }
        assert_eq!(status, StatusCode::OK, "{body}");
        Some(())
    })
    .await;
    assert!(server.engine().is_some_and(|now| now != engine));

    // What was delivered is charged, and nothing else of the streams.
    let logs = server.get("/v1/usage/logs").await;
    let broken = logs.as_array().unwrap().iter().filter(|row| row["status"] == "upstream_failed");
    let mut charged: Vec<u64> = broken.map(|row| row["output_tokens"].as_u64().unwrap()).collect();
    charged.sort_unstable();
    delivered.sort_unstable();
    assert_eq!(charged, delivered);
    server.settles().await;
}

#[tokio::test]
async fn two_hundred_cancels_leave_no_slot_busy() {
    let server = Server::with_models().await;
    for round in 0..25_u64 {
        // Half leave after the first bytes, half at some moment before or around them.
        let leave = async |number: u64| {
            if number.is_multiple_of(2) {
                let mut response = server.long_stream().await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                Seen::default().read(&mut response).await;
            } else {
                // Whether it answered by then or not, it is dropped.
                let _ = timeout(Duration::from_millis(round * number), server.long_stream()).await;
            }
        };
        futures::future::join_all((0..8).map(leave)).await;
    }
    until("every slot is free", PATIENCE, async || {
        let load = server.engine_load();
        (load["slots"]["busy"] == 0 && load["waiting"] == 0).then_some(())
    })
    .await;
    until("nothing is outstanding", PATIENCE, async || {
        let metrics = server.http.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "batchin_upstream_outstanding{upstream=\"engine\"} 0").then_some(())
    })
    .await;
    server.settles().await;
}

#[tokio::test]
async fn a_batch_is_answered_by_real_models_and_billed_to_the_nano_dollar() {
    let server = Server::with_models().await;
    let sample = root().join("examples/sample.jsonl");
    let out = server.folder.path().join("results.jsonl");
    let [sample_path, out_path] = [&sample, &out].map(|path| path.to_str().unwrap());
    server.says(&["batch", "run", sample_path, "--priority", "low", "--ordered", "--out", out_path]);

    let read = |path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (tasks, results) = (read(&sample), read(&out));
    let ids = |rows: &[Value]| rows.iter().map(|row| row["custom_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&results), ids(&tasks));
    let mut total = 0;
    for row in &results {
        assert_eq!(row["status"], "completed", "{row}");
        // Picodollars a token at half the standard price, as low has it.
        let (input, output) = if row["model"] == EMBED { (5_000, 0) } else { (10_000, 40_000) };
        let tokens = |name: &str| row["result"]["usage"][name].as_i64().unwrap_or(0);
        let cost = tokens("prompt_tokens") * input + tokens("completion_tokens") * output;
        let cost = cost / 1_000 + i64::from(cost % 1_000 > 0);
        assert!(cost > 0);
        assert_eq!(nanos(row["cost_cents"].as_f64().unwrap()), cost, "{row}");
        total += cost;
    }
    let with_id = |id: &str| results.iter().find(|row| row["custom_id"] == id).unwrap();
    let content = |id: &str| with_id(id)["result"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(with_id("count")["result"]["choices"][0]["text"].as_str().unwrap().contains("four, five"));
    assert!(serde_json::from_str::<Value>(&content("json")).unwrap()["legs"].is_i64());
    assert_eq!(with_id("embedding")["result"]["data"][0]["embedding"].as_array().unwrap().len(), 384);

    let summary = server.get("/v1/usage/summary").await;
    assert_eq!(summary["total_requests"], results.len());
    assert_eq!(nanos(summary["total_cost_cents"].as_f64().unwrap()), total);
    assert!(server.says(&["ledger", "check"]).ends_with("everything adds up"));
    server.settles().await;

    // As text, at the standard price; and a key that does not work ends it at once.
    let said = server.says(&["batch", "run", sample_path]);
    assert!(said.contains("\ncount: four, five"), "{said}");
    let stranger = Server::command(&server.folder)
        .args(["batch", "run", sample_path])
        .env("BATCHIN_BASE_URL", &server.url)
        .env("BATCHIN_API_KEY", "batchin_api_wrong")
        .output()
        .unwrap();
    assert_eq!(stranger.status.code(), Some(1), "{}", text(&stranger.stderr));
}

/// Every documented call, without the names of its parameters.
const DOCUMENTED: &[&str] = &[
    "POST /v1/users",
    "POST /v1/users/login",
    "GET /v1/users/me",
    "GET /v1/users/by-email",
    "POST /v1/keys",
    "GET /v1/keys",
    "DELETE /v1/keys/{}",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "GET /v1/models",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/{}",
    "POST /v1/batches/{}/cancel",
    "GET /v1/topup/history",
    "GET /v1/usage/logs",
    "GET /v1/usage/summary",
    "GET /v1/usage/by-model",
    // Ours.
    "POST /v1/users/logout",
    "PATCH /v1/users/me",
    "PATCH /v1/keys/{}",
    "GET /v1/models/{}",
    "GET /v1/batches/{}/results",
    "GET /v1/usage/timeseries",
    "POST /openai/v1/files",
    "GET /openai/v1/files",
    "GET /openai/v1/files/{}",
    "GET /openai/v1/files/{}/content",
    "DELETE /openai/v1/files/{}",
    "POST /openai/v1/batches",
    "GET /openai/v1/batches",
    "GET /openai/v1/batches/{}",
    "POST /openai/v1/batches/{}/cancel",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
    "POST /v1/webhooks/secret",
    "GET /v1/webhooks/deliveries",
    "POST /v1/webhooks/deliveries/{}/replay",
];

/// `/v1/keys/{id}` → `/v1/keys/{}`, or with a value in place of the name.
fn filled(path: &str, value: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn the_description_of_the_api_names_every_call_and_is_true() {
    let server = Server::without_models();
    let description = server.get("/openapi.json").await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."), "{}", description["openapi"]);
    let mut described = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            described.push(format!("{} {}", method.to_uppercase(), filled(path, "{}")));
            assert!(call["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} has no summary");
            let answers = call["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with('2')), "{method} {path} has no good answer");
            let is_public = call["security"].as_array().is_some_and(|all| all.iter().all(|one| one == &json!({})));
            if is_public {
                continue;
            }
            // What needs a key says so, under both of its paths.
            assert!(answers.contains_key("401"), "{method} {path}");
            let path = filled(path, "01890a5d-ac96-774b-bcce-b302099a8057");
            // What has OpenAI's shapes has one path.
            for path in [Some(path.as_str()), path.strip_prefix("/v1")].into_iter().flatten() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let response = server.http.request(method, format!("{}{path}", server.url)).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
                let error = response.json::<Value>().await.unwrap()["error"].take();
                let (word, expected) = if path.contains("/messages") {
                    (&error["type"], "authentication_error")
                } else {
                    (&error["code"], "unauthorized")
                };
                assert_eq!(word, expected, "{path}");
            }
        }
    }
    let missing: Vec<_> = DOCUMENTED.iter().filter(|call| !described.iter().any(|known| known == *call)).collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
}
