//! Holds: file operations of ours, and how they fail.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A file operation of ours failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}", path.display())]
pub struct DiskError {
    /// The operation, as a verb.
    pub action: &'static str,
    /// What it was done to.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), DiskError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DiskError::on("remove", path)(e)),
        _ => Ok(()),
    }
}
