//! Holds: what a source is asked for.

use crate::{catalogue::Artefact, options::PullOptions, workspace::Workspace};

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
    pub(super) fn report(&self, done: u64) {
        self.options.progress.bytes((self.before + done).min(self.total), self.total);
    }
}
