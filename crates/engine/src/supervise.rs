//! Holds: the parent's end of the engine: starts the child process, waits for it, restarts it, ends it.
//!
//! A crash in native code ends the child only. The child ends by itself when the parent dies, because it holds the
//! read end of a pipe on its standard input.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use batchin_tasks::Tasks;
use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Between questions whether a starting child is ready.
const POLL: Duration = Duration::from_millis(100);

/// One answer to such a question.
const POLL_PATIENCE: Duration = Duration::from_secs(2);

/// Loading the largest models from a slow disk.
const START_PATIENCE: Duration = Duration::from_secs(600);

/// The first pause before a restart; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A child that has run so long has recovered: the next restart starts with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// How long a child may take to drain after SIGTERM; a little more than it allows itself.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

/// How long a compute thread of the child spins at a barrier before it sleeps (libgomp's loop count). With the default
/// of 300,000, decoding falls to a tenth of its speed whenever another process wants a core; with 100, an undisturbed
/// machine loses a third.
const SPIN_COUNT: (&str, &str) = ("GOMP_SPINCOUNT", "1000");

/// How the child is started.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// The executable, usually this one.
    pub program: PathBuf,
    /// Its arguments, which must make it serve on `socket`.
    pub arguments: Vec<OsString>,
    /// The unix socket to ask for `/health`.
    pub socket: PathBuf,
}

/// What the engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// The first child loads its models.
    Starting,
    /// The child answers.
    Ready,
    /// The child has ended; another one is starting, or will after a pause.
    Restarting {
        /// Restarts since it last ran for a while, from 1.
        attempt: u32,
    },
    /// The supervisor has ended, and the child with it.
    Stopped,
}

/// A supervised engine. Its work ends with the [`Tasks`] that it was started in.
#[derive(Clone, Debug)]
pub struct Supervisor {
    state: watch::Receiver<EngineState>,
}

impl Supervisor {
    /// Starts the child and keeps one running until the tasks are shut down.
    pub fn start(options: SupervisorOptions, tasks: &Tasks) -> Self {
        let (sender, state) = watch::channel(EngineState::Starting);
        tasks.spawn("engine_supervisor", |stop| supervise(options, sender, stop));
        Self { state }
    }

    /// The state, and every change of it.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Waits until the child answers. False when the supervisor has ended instead.
    pub async fn ready(&self) -> bool {
        let settled = |state: &EngineState| matches!(state, EngineState::Ready | EngineState::Stopped);
        let mut state = self.state.clone();
        state.wait_for(settled).await.is_ok_and(|state| *state == EngineState::Ready)
    }
}

async fn supervise(options: SupervisorOptions, state: watch::Sender<EngineState>, stop: CancellationToken) {
    let mut attempt = 0;
    loop {
        let began = Instant::now();
        match run_child(&options, &state, &stop).await {
            Ended::Stopped => break,
            Ended::Crashed(status) => error!(%status, "the engine ended: {status}"),
            Ended::NotStarted(error) => error!(%error, "the engine could not be started"),
            Ended::NeverReady => error!("the engine did not become ready in {START_PATIENCE:?}"),
        }
        attempt = if began.elapsed() >= STABLE_AFTER { 1 } else { attempt + 1 };
        state.send_replace(EngineState::Restarting { attempt });
        let pause = pause(attempt);
        warn!(attempt, "restarting the engine in {pause:?}");
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => break,
        }
    }
    state.send_replace(EngineState::Stopped);
}

fn pause(attempt: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// How a child's run ended.
enum Ended {
    Stopped,
    Crashed(ExitStatus),
    NotStarted(std::io::Error),
    NeverReady,
}

async fn run_child(options: &SupervisorOptions, state: &watch::Sender<EngineState>, stop: &CancellationToken) -> Ended {
    let spawned = Command::new(&options.program)
        .args(&options.arguments)
        .env(SPIN_COUNT.0, SPIN_COUNT.1)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ended::NotStarted(error),
    };
    // Kept open for as long as the child may live: its end tells the child that the parent is gone.
    let _lifeline = child.stdin.take();
    let log = child.stderr.take();
    let watched = async {
        tokio::select! {
            ended = child.wait() => return ended.map_or_else(Ended::NotStarted, Ended::Crashed),
            () = stop.cancelled() => {}
            ready = timeout(START_PATIENCE, until_healthy(&options.socket)) => {
                if ready.is_err() {
                    end(&mut child).await;
                    return Ended::NeverReady;
                }
                info!("the engine is ready");
                state.send_replace(EngineState::Ready);
                tokio::select! {
                    ended = child.wait() => return ended.map_or_else(Ended::NotStarted, Ended::Crashed),
                    () = stop.cancelled() => {}
                }
            }
        }
        end(&mut child).await;
        Ended::Stopped
    };
    let forward = async {
        if let Some(log) = log {
            forward_log(log).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = watched => ended,
        () = forward => Ended::Stopped,
    }
}

/// Asks the child to drain, and kills it when it takes too long.
async fn end(child: &mut Child) {
    if let Some(id) = child.id() {
        // There is no safe call for it in std, and kill(1) is everywhere.
        let asked = Command::new("kill").arg("-TERM").arg(id.to_string()).status().await;
        if asked.is_ok_and(|status| status.success()) && timeout(STOP_PATIENCE, child.wait()).await.is_ok() {
            return;
        }
        warn!("the engine did not end in {STOP_PATIENCE:?} and is killed");
    }
    if let Err(error) = child.kill().await {
        error!(%error, "the engine could not be killed");
    }
}

async fn until_healthy(socket: &Path) {
    while !timeout(POLL_PATIENCE, is_healthy(socket)).await.unwrap_or(false) {
        sleep(POLL).await;
    }
}

async fn is_healthy(socket: &Path) -> bool {
    let Ok(stream) = UnixStream::connect(socket).await else { return false };
    let Ok((mut sender, connection)) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await else {
        return false;
    };
    let Ok(request) = Request::get("/health").header("host", "engine").body(Empty::new()) else { return false };
    tokio::select! {
        answer = sender.send_request(request) => answer.is_ok_and(|answer| answer.status().is_success()),
        _ = connection => false,
    }
}

/// The child's log lines become ours.
async fn forward_log(log: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(log).lines();
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => relay(&line),
            Ok(None) => return,
            Err(error) => return debug!(%error, "the engine's log ended"),
        }
    }
}

/// Structured lines keep their level; anything else is what native code printed, which matters when it crashes.
fn relay(line: &str) {
    let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(line).ok();
    let text = |key: &str| parsed.as_ref().and_then(|line| line.get(key)).and_then(serde_json::Value::as_str);
    let message = parsed
        .as_ref()
        .and_then(|line| line.get("fields")?.get("message")?.as_str())
        .or_else(|| text("message"))
        .unwrap_or(line);
    match text("level") {
        Some("ERROR") => error!(target: "engine", "{message}"),
        Some("WARN") => warn!(target: "engine", "{message}"),
        Some("INFO") => info!(target: "engine", "{message}"),
        Some(_) => debug!(target: "engine", "{message}"),
        None => warn!(target: "engine", "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!([1, 2, 3].map(pause), [250, 500, 1000].map(Duration::from_millis));
        assert_eq!([9, 40, u32::MAX].map(pause), [LONGEST_PAUSE; 3]);
    }
}
