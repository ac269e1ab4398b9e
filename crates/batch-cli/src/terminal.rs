//! Holds: what every batch command has around it: where it prints, the server it is connected to, how it can fail.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use batchin_settings::Environment;
use secrecy::{ExposeSecret as _, SecretString};

use super::arguments::{Connection, Delivery};
use super::interrupts::Interrupts;
use super::results::{Form, OutError, OutFile, Sink, Target};
use super::talk::{Client, ClientError, SetupError};
use crate::outcome::Outcome;

/// Where the server is when `BATCHIN_BASE_URL` does not say.
const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8080";

/// Where the converted input and results that wait for their turn may lie: `/tmp` is often memory.
const SPOOL_FOLDER: &str = "/var/tmp";

/// What a command has around it; tests give their own.
pub struct Terminal<'a> {
    /// Answers, and nothing else.
    pub out: &'a mut dyn Write,
    /// Whether progress goes to a terminal: a bar, or lines.
    pub is_interactive: bool,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There is no key.
    #[error("set BATCHIN_API_KEY to a key, or give --api-key; `batchin key create EMAIL` makes one")]
    NoKey,
    /// The address, the key or the certificates are none.
    #[error(transparent)]
    Setup(SetupError),
    /// The file of `--cacert` is none.
    #[error("--cacert: cannot use {file}")]
    Certificates {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of `--out` cannot be opened; nothing was sent.
    #[error("--out: cannot write {file}")]
    Out {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: OutError,
    },
    /// The arguments do not go together.
    #[error("{text}")]
    Usage {
        /// What does not, and what would.
        text: String,
    },
    /// The input cannot be read.
    #[error("cannot read {file}")]
    Input {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The converted input cannot be kept.
    #[error("cannot write temporary files to {folder}; TMPDIR names another folder")]
    Spool {
        /// Where.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The input has faults.
    #[error("{text}")]
    Faults {
        /// Every fault with its line.
        text: String,
    },
    /// Ctrl-C before the batch had an id.
    #[error("stopped while submitting; `batchin batch list` shows whether the batch was made")]
    Stopped,
    /// The server refused, or could not be reached for long.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// What is written cannot be written.
    #[error("cannot write the results")]
    Output(#[source] io::Error),
}

impl BatchError {
    /// The exit code that fits.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NoKey
            | Self::Setup(_)
            | Self::Certificates { .. }
            | Self::Out { .. }
            | Self::Usage { .. }
            | Self::Faults { .. } => Outcome::Misused,
            Self::Input { source, .. } if is_of_the_name(source) => Outcome::Misused,
            Self::Input { .. } | Self::Spool { .. } | Self::Stopped | Self::Server(_) | Self::Output(_) => {
                Outcome::Failed
            }
        }
    }
}

/// What the operating system says of a name that was mistyped.
fn is_of_the_name(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

/// The file of `--out`, if there is one: opened before anything is sent.
pub(super) fn open(delivery: &Delivery) -> Result<Option<OutFile>, BatchError> {
    let Some(path) = &delivery.out else { return Ok(None) };
    let opened = OutFile::open(path, delivery.force);
    opened.map(Some).map_err(|source| BatchError::Out { file: path.display().to_string(), source })
}

pub(super) fn sink<'a>(
    delivery: &Delivery,
    file: Option<OutFile>,
    out: &'a mut dyn Write,
) -> Result<Sink<'a>, BatchError> {
    let (target, form) = match file {
        Some(file) => (Target::File(file), Form::Json),
        None if delivery.json => (Target::Stream(out), Form::Json),
        None => (Target::Stream(out), Form::Text),
    };
    Sink::new(target, form, delivery.ordered, &spool_folder()).map_err(BatchError::Output)
}

/// `TMPDIR` where it is set, else a folder on a disk.
pub(super) fn spool_folder() -> PathBuf {
    let default = std::env::temp_dir();
    let is_default = default == Path::new("/tmp") && Path::new(SPOOL_FOLDER).is_dir();
    if is_default { PathBuf::from(SPOOL_FOLDER) } else { default }
}

pub(super) fn connect(connection: &Connection, environment: &Environment) -> Result<Client, BatchError> {
    let base_url = connection.base_url.as_deref().or_else(|| environment.value("BATCHIN_BASE_URL"));
    let key = connection.api_key.clone().or_else(|| environment.value("BATCHIN_API_KEY").map(SecretString::from));
    let key = key.map(trimmed).ok_or(BatchError::NoKey)?;
    let trusted = connection.cacert.as_deref().map_or(Ok(Vec::new()), certificates)?;
    Client::new(base_url.unwrap_or(DEFAULT_BASE_URL).trim(), key, trusted).map_err(BatchError::Setup)
}

/// Keys that come out of files have line breaks at their ends.
fn trimmed(key: SecretString) -> SecretString {
    SecretString::from(key.expose_secret().trim())
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, BatchError> {
    let unusable = |source| BatchError::Certificates { file: path.display().to_string(), source };
    let text = std::fs::read(path).map_err(unusable)?;
    match reqwest::Certificate::from_pem_bundle(&text) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(unusable(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate in PEM"))),
    }
}

pub(super) fn print(out: &mut dyn Write, text: &str) -> Result<Outcome, BatchError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(BatchError::Output)?;
    Ok(Outcome::Done)
}
