//! The engine as a process of its own: started, restarted and ended as the server does it.
#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use batchin_engine::{EngineOptions, EngineState, ModelKind, Supervisor, SupervisorOptions, run};
use batchin_tasks::Tasks;
use support::{EMBED, model, post_request, send};
use tempfile::TempDir;

const SOCKET: &str = "BATCHIN_TEST_ENGINE_SOCKET";

/// Not a test of its own: with the variable set, this process is the engine that the tests below start.
#[test]
fn engine_child() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let mut options = EngineOptions::new(socket.into(), vec![model(EMBED, ModelKind::Embed)]);
    options.threads = Some(1);
    run(options).unwrap();
}

/// The command line that makes this test binary an engine on `socket`.
fn command(folder: &TempDir) -> (std::path::PathBuf, Vec<std::ffi::OsString>) {
    let socket = folder.path().join("engine.sock");
    let variable = format!("{SOCKET}={}", socket.display()).into();
    let program = std::env::current_exe().unwrap().into_os_string();
    (socket, vec![variable, program, "engine_child".into(), "--exact".into(), "--nocapture".into()])
}

async fn embeds(socket: &std::path::Path) -> bool {
    let body = format!(r#"{{"model":"{EMBED}","input":"hello"}}"#);
    send(socket, post_request("/v1/embeddings", body.into())).await.status() == 200
}

#[tokio::test]
async fn a_killed_engine_is_started_again_and_ends_with_its_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, arguments) = command(&folder);
    let tasks = Tasks::new();
    let options = SupervisorOptions { program: "/usr/bin/env".into(), arguments, socket: socket.clone() };
    let supervisor = Supervisor::start(options, &tasks);
    assert!(supervisor.ready().await);
    assert!(embeds(&socket).await);

    let mut state = supervisor.state();
    let found = Command::new("pgrep").arg("-P").arg(std::process::id().to_string()).output().unwrap();
    let child = String::from_utf8(found.stdout).unwrap().lines().next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-KILL", &child]).status().unwrap().success());
    state.wait_for(|state| *state == EngineState::Restarting { attempt: 1 }).await.unwrap();
    assert!(supervisor.ready().await);
    assert!(embeds(&socket).await);

    assert_eq!(tasks.shutdown(Duration::from_secs(20)).await, 0);
    assert_eq!(*state.borrow_and_update(), EngineState::Stopped);
    assert!(!socket.exists(), "the child ended in good order");
}

#[test]
fn an_engine_ends_when_its_parent_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, arguments) = command(&folder);
    let mut child =
        Command::new("/usr/bin/env").args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the engine ended by itself");
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_program_that_fails_is_tried_again_with_pauses() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let options = SupervisorOptions {
        program: "/bin/false".into(),
        arguments: Vec::new(),
        socket: folder.path().join("engine.sock"),
    };
    let supervisor = Supervisor::start(options, &tasks);
    let mut state = supervisor.state();
    state.wait_for(|state| *state == EngineState::Restarting { attempt: 2 }).await.unwrap();
    assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, 0);
    assert!(!supervisor.ready().await);
}

#[test]
fn a_requantised_model_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let nonsense = folder.path().join("nonsense.gguf");
    std::fs::write(&nonsense, b"not a model").unwrap();
    assert!(batchin_engine::quantize_q8_0(&nonsense, &output).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    batchin_engine::quantize_q8_0(&support::weights(EMBED), &output).unwrap();
    assert_eq!(std::fs::read(&output).unwrap()[..4], *b"GGUF");
}
