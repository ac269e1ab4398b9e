//! Holds: one server process, and what can be done to it.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::PATIENCE;

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
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Kept open, as a terminal would be.
    _stdout: BufReader<ChildStdout>,
}

impl Node {
    pub(super) async fn start(config: &Path, data: PathBuf, log: PathBuf) -> Self {
        let address = Address::default();
        let mut node = Self { address, config: config.to_owned(), data, log, running: None };
        node.start_again().await;
        node
    }

    /// Starts it on the same data folder. Ready when this returns.
    pub async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the node runs already");
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_batchin"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .env_clear()
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
        *self.address.0.lock().unwrap() = url.expect("the server says where it listens").to_owned();
        self.running = Some(Running { child, _stdout: stdout });
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
