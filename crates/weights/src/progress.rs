//! Holds: how a pull tells its caller what it is doing.

use std::fmt;

use crate::source::SourceFailure;

/// What a pull is doing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Another process is pulling the same model.
    Waiting,
    /// Bytes are coming from a source.
    Fetching {
        /// The source, in words.
        source: String,
    },
    /// What came is being hashed.
    Checking,
    /// The fetched file is being converted or requantised.
    Finishing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting for another pull of the same model"),
            Self::Fetching { source } => write!(f, "fetching from {source}"),
            Self::Checking => f.write_str("checking"),
            Self::Finishing => f.write_str("converting"),
        }
    }
}

/// Told how a pull goes on. Calls come from any thread and must return at once.
pub trait Progress: Send + Sync {
    /// A new stage has begun.
    fn stage(&self, stage: &Stage);

    /// So many bytes of the model's files are here, of so many in all. Can go back when a source is given up.
    fn bytes(&self, done: u64, total: u64);

    /// A source is given up and the next one is tried.
    fn passed_over(&self, failure: &SourceFailure);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: &Stage) {}
    fn bytes(&self, _: u64, _: u64) {}
    fn passed_over(&self, _: &SourceFailure) {}
}
