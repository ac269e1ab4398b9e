//! Holds: a program that encodes, fed and read at once.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::codec::EncodeError;
use crate::{
    format::{PcmSpec, SoundFormat},
    programs::Program,
};

/// How much is read at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// How much is kept of what a program says of itself: its last lines.
const MOST_SAID_BYTES: usize = 2 * 1024;
/// How long a program may be silent after its input has ended. It has milliseconds of sound left by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child, killed when this is dropped.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    /// `None` once the input has ended, or the program no longer reads it.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// `None` once it is closed.
    stderr: Option<ChildStderr>,
    /// Samples that the program has not taken.
    waiting: Bytes,
    said: BytesMut,
    /// Whether all samples were given.
    has_ended: bool,
}

/// What happened to a program.
pub(crate) enum Step {
    /// It wrote this.
    Wrote(Bytes),
    /// It took all that it was given, and would take more.
    Hungry,
    /// It wrote everything.
    Done,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(program: Program<'_>, format: SoundFormat, spec: PcmSpec) -> io::Result<Self> {
        let (name, mut command) = match program {
            Program::Lame(file) => ("lame", lame(Command::new(file), spec)),
            Program::Ffmpeg(file) => ("ffmpeg", ffmpeg(Command::new(file), format, spec)),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let closed = || io::Error::other("the child has no pipe");
        Ok(Self {
            name,
            stdin: Some(child.stdin.take().ok_or_else(closed)?),
            stdout: child.stdout.take().ok_or_else(closed)?,
            stderr: child.stderr.take(),
            child,
            waiting: Bytes::new(),
            said: BytesMut::new(),
            has_ended: false,
        })
    }

    /// Gives it samples, after it was [`Step::Hungry`].
    pub(crate) fn give(&mut self, samples: Vec<u8>) {
        self.waiting = samples.into();
    }

    /// Says that there is no more.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Waits for what happens next. May be dropped while it waits, and called again.
    pub(crate) async fn step(&mut self) -> Result<Step, EncodeError> {
        loop {
            if self.waiting.is_empty() {
                if !self.has_ended {
                    return Ok(Step::Hungry);
                }
                self.stdin = None;
            }
            if let Some(step) = self.turn().await? {
                return Ok(step);
            }
        }
    }

    /// What it writes while nobody has samples for it. May be dropped while it waits.
    pub(crate) async fn written(&mut self) -> Result<Bytes, EncodeError> {
        loop {
            match self.turn().await? {
                Some(Step::Wrote(bytes)) => return Ok(bytes),
                // It is done only after its input has ended, and then nobody waits here.
                Some(Step::Hungry | Step::Done) | None => {}
            }
        }
    }

    /// One event: it read, wrote or said something.
    async fn turn(&mut self) -> Result<Option<Step>, EncodeError> {
        let name = self.name;
        let pipe = |source| EncodeError::Pipe { program: name, source };
        let mut wrote = BytesMut::with_capacity(READ_BYTES);
        let is_fed = self.stdin.is_some() && !self.waiting.is_empty();
        tokio::select! {
            count = self.stdout.read_buf(&mut wrote) => {
                if count.map_err(pipe)? == 0 {
                    return self.ended().await.map(Some);
                }
                return Ok(Some(Step::Wrote(wrote.freeze())));
            }
            count = feed(&mut self.stdin, &self.waiting), if is_fed => match count {
                Ok(count) => self.waiting.advance(count),
                // Its status tells why it no longer reads.
                Err(_) => {
                    self.stdin = None;
                    self.waiting.clear();
                }
            },
            open = listen(&mut self.stderr, &mut self.said), if self.stderr.is_some() => {
                if !open {
                    self.stderr = None;
                }
            }
            () = tokio::time::sleep(PATIENCE), if self.stdin.is_none() => {
                return Err(EncodeError::ProgramStuck { program: name, seconds: PATIENCE.as_secs() });
            }
        }
        Ok(None)
    }

    async fn ended(&mut self) -> Result<Step, EncodeError> {
        let has_taken_all = self.has_ended && self.waiting.is_empty();
        self.stdin = None;
        while self.stderr.is_some() {
            if !listen(&mut self.stderr, &mut self.said).await {
                self.stderr = None;
            }
        }
        let name = self.name;
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|_| EncodeError::ProgramStuck { program: name, seconds: PATIENCE.as_secs() })?
            .map_err(|source| EncodeError::Pipe { program: name, source })?;
        if status.success() && has_taken_all { Ok(Step::Done) } else { Err(self.failed(status)) }
    }

    fn failed(&self, status: ExitStatus) -> EncodeError {
        let said = String::from_utf8_lossy(&self.said).trim().to_owned();
        EncodeError::ProgramFailed { program: self.name, status: status.to_string(), said }
    }
}

async fn feed(stdin: &mut Option<ChildStdin>, bytes: &Bytes) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(bytes).await,
        None => std::future::pending().await,
    }
}

/// Keeps the end of what is said; `false` once nothing more will be.
async fn listen(stderr: &mut Option<ChildStderr>, said: &mut BytesMut) -> bool {
    let Some(stderr) = stderr else { return false };
    let is_open = stderr.read_buf(said).await.is_ok_and(|count| count > 0);
    if let Some(too_much) = said.len().checked_sub(MOST_SAID_BYTES) {
        said.advance(too_much);
    }
    is_open
}

/// Constant bitrates: of a stream whose length nobody knows, players tell the time by them.
fn mp3_kilobits(spec: PcmSpec) -> u32 {
    // MPEG-2.5 has no more than 64, MPEG-2 no more than 160.
    match (spec.rate, spec.channels) {
        (..16_000, _) => 64,
        (_, 1) => 128,
        (..32_000, _) => 160,
        _ => 192,
    }
}

fn lame(mut command: Command, spec: PcmSpec) -> Command {
    let kilohertz = format!("{}.{:03}", spec.rate / 1_000, spec.rate % 1_000);
    let mode = if spec.channels == 1 { "m" } else { "j" };
    // -t: the tag before the sound is rewritten when all is known, which a pipe does not let it.
    command.args(["--quiet", "--flush", "-t", "-r", "--bitwidth", "16", "--signed", "--little-endian", "-m", mode]);
    command.args([
        "-s",
        &kilohertz,
        "--resample",
        &kilohertz,
        "--cbr",
        "-b",
        &mp3_kilobits(spec).to_string(),
        "-",
        "-",
    ]);
    command
}

fn ffmpeg(mut command: Command, format: SoundFormat, spec: PcmSpec) -> Command {
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-probesize", "32", "-f", "s16le"]);
    command.args(["-ar", &spec.rate.to_string(), "-ac", &spec.channels.to_string(), "-i", "pipe:0"]);
    if format == SoundFormat::Aac {
        let kilobits = if spec.channels == 1 { "96k" } else { "160k" };
        command.args(["-c:a", "aac", "-b:a", kilobits, "-f", "adts"]);
    } else {
        let kilobits = format!("{}k", mp3_kilobits(spec));
        command.args(["-c:a", "libmp3lame", "-b:a", &kilobits, "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"]);
    }
    command.args(["-flush_packets", "1", "pipe:1"]);
    command
}
