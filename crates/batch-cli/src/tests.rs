//! Holds: the batch commands against a real server, and against a fake of the file calls.

mod fake;
mod files;
mod inline;
mod wire;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::arguments::{BatchCommand, BatchRun, Connection, Delivery, Terms};
use super::*;

/// A folder with an input, and what a command made of it.
struct Desk {
    folder: tempfile::TempDir,
    environment: Environment,
}

/// A command's end, and what it printed.
struct Ran {
    outcome: Result<Outcome, BatchError>,
    printed: String,
}

impl Desk {
    fn new(base: &str, key: &str, input: &str) -> Self {
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("in.jsonl"), input).unwrap();
        let variables = [("BATCHIN_BASE_URL", base), ("BATCHIN_API_KEY", key)];
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { folder, environment }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of `in.jsonl` to `out.jsonl`.
    fn run(&self) -> BatchRun {
        BatchRun {
            file: self.path("in.jsonl"),
            model: Some("chat-model".to_owned()),
            template: None,
            template_file: None,
            id_column: None,
            estimate: false,
            terms: Terms::default(),
            delivery: Delivery { out: Some(self.path("out.jsonl")), ordered: true, ..Delivery::default() },
        }
    }

    async fn execute(&self, command: Batch) -> Ran {
        self.execute_with(command, Interrupts::scripted(futures::stream::pending(), None)).await
    }

    async fn execute_with(&self, command: Batch, interrupts: Interrupts) -> Ran {
        let mut out = Vec::new();
        let terminal = Terminal { out: &mut out, is_interactive: false, interrupts };
        let command = BatchCommand { connection: Connection::default(), command };
        let outcome = super::execute(&command, &self.environment, terminal).await;
        Ran { outcome, printed: String::from_utf8(out).unwrap() }
    }

    async fn execute_run(&self, run: BatchRun) -> Ran {
        self.execute(Batch::Run(Box::new(run))).await
    }

    fn results(&self) -> Vec<Value> {
        lines(&std::fs::read_to_string(self.path("out.jsonl")).unwrap())
    }
}

/// Somebody at the keyboard: Ctrl-C when the test says so, and answers in turn; then silence.
fn person(answers: &[&str]) -> (mpsc::Sender<()>, Interrupts, Arc<Mutex<usize>>) {
    let (press, pressed) = mpsc::channel(8);
    let signals = futures::stream::unfold(pressed, |mut pressed: mpsc::Receiver<()>| async move {
        pressed.recv().await.map(|()| ((), pressed))
    });
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let mut silent = Vec::new();
    let ask = move || {
        *count.lock().unwrap() += 1;
        let (answer, answered) = oneshot::channel();
        match answers.pop_front() {
            Some(line) => answer.send(line).unwrap(),
            None => silent.push(answer),
        }
        answered
    };
    (press, Interrupts::scripted(signals, Some(Box::new(ask))), asked)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect()
}

/// So many prompts, each with a name.
fn prompts(count: usize) -> String {
    (0..count).map(|n| format!("{{\"custom_id\":\"task-{n}\",\"prompt\":\"p {n}\",\"max_tokens\":3}}\n")).collect()
}
