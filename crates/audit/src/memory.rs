//! Holds: what this node has signed last, in a file beside the database: a database that was put back to an earlier day does
//! not know it, and signing on from there would be another history.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use batchin_receipts::Hash;
use serde::{Deserialize, Serialize};

/// What was signed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    pub(crate) origin: String,
    pub(crate) size: u64,
    pub(crate) root: String,
}

/// The file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
    /// std mutex: held for one comparison, never across an await.
    last: Arc<Mutex<Option<Signed>>>,
}

/// Why nothing may be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Forgotten {
    #[error(
        "this node has signed the log at {signed} entries, and the database has {stored}: it was put back to an earlier day"
    )]
    Shorter { signed: u64, stored: u64 },
    #[error(
        "this node has signed another tree of {size} entries: the database was put back to an earlier day and went on from there"
    )]
    Other { size: u64 },
    #[error("what this node has signed cannot be written down")]
    File(#[source] io::Error),
}

impl Memory {
    /// Reads the file, if there is one.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let last = match fs::read(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?),
            Err(cause) if cause.kind() == ErrorKind::NotFound => None,
            Err(cause) => return Err(cause),
        };
        Ok(Self { path, last: Arc::new(Mutex::new(last)) })
    }

    /// Whether a tree may be signed, as far as its size and root tell.
    pub(crate) fn allows(&self, origin: &str, size: u64, root: &Hash) -> Result<(), Forgotten> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|last| last.origin == origin) {
            Some(last) if last.size > size => Err(Forgotten::Shorter { signed: last.size, stored: size }),
            Some(last) if last.size == size && last.root != root.hex() => Err(Forgotten::Other { size }),
            _ => Ok(()),
        }
    }

    /// What was signed last, for whoever has to know that the next one goes on from it.
    pub(crate) fn last(&self, origin: &str) -> Option<Signed> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|last| last.origin == origin)
    }

    /// Writes down what is about to be signed; it is on the disk when this returns.
    pub(crate) fn remember(&self, signed: Signed) -> Result<(), Forgotten> {
        let fresh = self.path.with_extension("new");
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(&signed).map_err(io::Error::other)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        };
        write().map_err(Forgotten::File)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(signed);
        Ok(())
    }
}
