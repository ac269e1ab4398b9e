//! Holds: one server process, and what can be done to it.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::PATIENCE;

/// How many seconds a server's clock is ahead.
pub const CLOCK_AHEAD: &str = "BATCHIN_FAULT_CLOCK_AHEAD";

/// Where a node is; follows it over restarts.
#[derive(Clone, Debug, Default)]
pub struct Address(Arc<Mutex<String>>);

impl Address {
    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// A server process. Killed when dropped.
pub struct Node {
    /// Where it listens.
    pub address: Address,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    environment: Environment,
    running: Option<Running>,
}

/// Variables that a server is started with; nothing else of the test's own environment reaches it.
pub type Environment = Vec<(&'static str, String)>;

struct Running {
    child: Child,
    /// Kept open, as a terminal would be.
    _stdout: BufReader<ChildStdout>,
}

impl Node {
    /// Not started yet.
    pub(super) fn new(config: &Path, data: PathBuf, log: PathBuf, environment: Environment) -> Self {
        Self { address: Address::default(), config: config.to_owned(), data, log, environment, running: None }
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The same with another configuration.
    pub(super) fn with_config(self, config: PathBuf) -> Self {
        Self { config, ..self }
    }

    /// Runs a command with this server's configuration; what it prints, and whether it succeeded.
    pub async fn command(&self, arguments: &[&str]) -> (bool, String) {
        let ran = Command::new(env!("CARGO_BIN_EXE_batchin"))
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// From its next start on it goes by a clock that is so far ahead.
    pub fn set_clock_ahead(&mut self, by: Duration) {
        self.environment.push((CLOCK_AHEAD, by.as_secs().to_string()));
    }

    /// Starts it on the same data folder. Ready when this returns.
    pub async fn start_again(&mut self) {
        assert!(self.spawn(&[]).await, "the server says where it listens");
    }

    /// Starts it. Whether it lived until it was ready; one that did not may be started again.
    pub async fn starts(&mut self) -> bool {
        let ready = self.spawn(&[]).await;
        if !ready {
            self.wait_for_death().await;
            self.running = None;
        }
        ready
    }

    /// From its next start on it has this in its environment.
    pub(super) fn extend_environment(&mut self, more: Environment) {
        self.environment.extend(more);
    }

    /// Starts it, to die when it reaches the point for the `hit`-th time. Whether it lived until it was ready.
    pub async fn start_to_die(&mut self, point: &str, hit: u32) -> bool {
        self.spawn(&[("BATCHIN_FAULT_DIE_AT", format!("{point}:{hit}"))]).await
    }

    /// Waits until it has died at the point that it was started to die at.
    pub async fn died_at(&mut self, point: &str) {
        let ended = self.wait_for_death().await.unwrap_or_else(|| panic!("{point} was never reached"));
        self.running = None;
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()), "it died of something else: {ended}");
        let said = self.log().lines().rev().find_map(|line| line.strip_prefix("died at ").map(ToOwned::to_owned));
        assert_eq!(said.as_deref(), Some(point));
    }

    /// Waits until it has ended; `None` if it does not in time.
    pub async fn wait_for_death(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut().expect("the node runs");
        timeout(PATIENCE, running.child.wait()).await.ok().map(Result::unwrap)
    }

    async fn spawn(&mut self, more: &[(&'static str, String)]) -> bool {
        assert!(self.running.is_none(), "the node runs already");
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_batchin"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .env_clear()
            .envs(self.environment.iter().chain(more).map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the server starts in time").unwrap();
        let url = line.trim().strip_prefix("listening on ");
        if let Some(url) = url {
            url.clone_into(&mut self.address.0.lock().unwrap());
        }
        self.running = Some(Running { child, _stdout: stdout });
        url.is_some()
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        let mut running = self.running.take().expect("the node runs");
        running.child.kill().await.unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut running = self.running.take().expect("the node runs");
        timeout(PATIENCE, running.child.wait()).await.expect("the server ends in time").unwrap()
    }

    /// SIGTERM.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it stands still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP: it reads its configuration again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = self.running.as_ref().and_then(|running| running.child.id()).expect("the node runs");
        let pid = Pid::from_raw(id.try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}
