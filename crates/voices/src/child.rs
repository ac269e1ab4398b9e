//! Holds: running a program with a short text as its input, within bounds of time and of output.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Bytes of input that are written before anything is read: what every pipe has room for, so that a program that reads
/// nothing cannot hold us up.
pub(crate) const MAX_INPUT: usize = 4096;

/// How a run of a program went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started, or not be written to or read from.
    #[error("it could not be run")]
    Io(#[from] io::Error),
    /// It took longer than this and was killed.
    #[error("it did not end in {0:?}")]
    Slow(Duration),
    /// It failed.
    #[error("it ended with {0}")]
    Status(std::process::ExitStatus),
    /// It wrote more than so many bytes and was killed.
    #[error("it wrote more than {0} bytes")]
    Flood(usize),
}

/// What a run may take.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    pub(crate) output: usize,
}

/// A child that does not outlive its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself; what counts is that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program on `input`, at most [`MAX_INPUT`] bytes, and returns what it wrote. Killed when a bound is reached.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &[u8], bounds: Bounds) -> Result<Vec<u8>, RunError> {
    let input = input.get(..MAX_INPUT).unwrap_or(input);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Owned(command.spawn()?);
    if let Some(mut stdin) = child.0.stdin.take() {
        match stdin.write_all(input) {
            // It may end without reading; its status says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    let Some(stdout) = child.0.stdout.take() else { return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) };
    let (done, output) = mpsc::sync_channel(1);
    let most = u64::try_from(bounds.output).unwrap_or(u64::MAX);
    // Reads from a pipe cannot be bounded in time; the reader ends when the child is killed.
    thread::Builder::new().name("program-output".to_owned()).spawn(move || {
        let mut read = Vec::new();
        let outcome = stdout.take(most.saturating_add(1)).read_to_end(&mut read).map(|_| read);
        // Nobody listens after the time is over.
        let _ = done.send(outcome);
    })?;
    let output = output.recv_timeout(bounds.time).map_err(|_| RunError::Slow(bounds.time))??;
    if output.len() > bounds.output {
        return Err(RunError::Flood(bounds.output));
    }
    // It has closed its output, which it does by ending.
    let status = child.0.wait()?;
    if status.success() { Ok(output) } else { Err(RunError::Status(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), output: 10_000 };

    fn sh(script: &str, input: &str, bounds: Bounds) -> Result<Vec<u8>, RunError> {
        run(Path::new("/bin/sh"), &["-c", script], input.as_bytes(), bounds)
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(sh("tr a-z A-Z", "hello", BOUNDS).unwrap(), b"HELLO");
        assert_eq!(sh("true", "nobody reads this", BOUNDS).unwrap(), b"");
    }

    #[test]
    fn a_run_is_bounded_in_time_and_output_and_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", file.display());
        let short = Bounds { time: Duration::from_millis(500), ..BOUNDS };
        assert!(matches!(sh(&script, "", short), Err(RunError::Slow(_))));
        let pid = std::fs::read_to_string(&file).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid} lives");
        assert!(matches!(sh("yes", "", BOUNDS), Err(RunError::Flood(10_000))));
        assert!(matches!(sh("exit 3", "", BOUNDS), Err(RunError::Status(status)) if status.code() == Some(3)));
        assert!(matches!(run(Path::new("/nonexistent"), &[], b"", BOUNDS), Err(RunError::Io(_))));
    }
}
