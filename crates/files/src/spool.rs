//! Holds: a file that a request brings and nobody keeps: on the disk while the request lasts.
//!
//! It has no name there, so that it is gone with whoever has it open, however that ends.

use std::{fs::File, io, path::PathBuf};

use batchin_domain::AccountId;
use batchin_shares::{NoShare, Share};
use tokio::{io::AsyncWriteExt as _, task::spawn_blocking};

use crate::{Files, WriteFileError};

/// What is gathered in memory before it is written: few enough writes, and little for each upload.
const BUFFER_BYTES: usize = 256 * 1024;
/// Bytes after which the disk is looked at again; see `room.rs`.
const LOOK_BYTES: u64 = 4 * 1024 * 1024;

/// A file on its way. Dropped, it is gone.
pub struct Spool {
    files: Files,
    file: tokio::fs::File,
    written: u64,
    limit: u64,
    place: Share<AccountId>,
}

/// A file that has come.
pub struct Spooled {
    /// Open for reading and writing; without a name.
    pub file: File,
    /// How long it is.
    pub bytes: u64,
    /// Its place among the uploads of this node, for as long as it is used.
    pub place: Share<AccountId>,
}

impl Files {
    /// Begins a file of at most `limit` bytes that lasts as long as its request.
    ///
    /// # Errors
    ///
    /// [`WriteFileError::Busy`] and [`WriteFileError::OverShare`] while others upload, [`WriteFileError::NoDisk`], and
    /// [`WriteFileError::Spool`].
    pub async fn spool(&self, account: AccountId, limit: u64) -> Result<Spool, WriteFileError> {
        let place = self.uploads.take(account, 1).map_err(|why| match why {
            NoShare::Full => WriteFileError::Busy,
            NoShare::OverPart => WriteFileError::OverShare,
        })?;
        self.check_disk()?;
        let folder = self.options.spool.clone();
        let opened = spawn_blocking(move || nameless(folder)).await;
        let file = opened.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into())).map_err(WriteFileError::Spool)?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(BUFFER_BYTES);
        Ok(Spool { files: self.clone(), file, written: 0, limit, place })
    }
}

fn nameless(folder: PathBuf) -> io::Result<File> {
    std::fs::create_dir_all(&folder)?;
    tempfile::tempfile_in(folder)
}

impl Spool {
    /// Writes more of it.
    ///
    /// # Errors
    ///
    /// [`WriteFileError::TooLarge`], [`WriteFileError::NoDisk`] and [`WriteFileError::Spool`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WriteFileError> {
        let before = self.written;
        self.written = before.saturating_add(bytes.len() as u64);
        if self.written > self.limit {
            return Err(WriteFileError::TooLarge { limit: self.limit });
        }
        if before / LOOK_BYTES != self.written / LOOK_BYTES {
            self.files.check_disk()?;
        }
        self.file.write_all(bytes).await.map_err(WriteFileError::Spool)
    }

    /// All of it has come.
    ///
    /// # Errors
    ///
    /// [`WriteFileError::Spool`]
    pub async fn finish(mut self) -> Result<Spooled, WriteFileError> {
        self.file.flush().await.map_err(WriteFileError::Spool)?;
        Ok(Spooled { file: self.file.into_std().await, bytes: self.written, place: self.place })
    }
}
