//! Holds: whether there is room for more: on the disk, and for an account.

use batchin_store::{ClaimFileError, FileRoom};

use crate::{Files, Upload, WriteFileError};

/// Bytes after which a file that is being written looks at the disk again: with as many uploads as there may be, well
/// below any reserve.
const LOOK_BYTES: u64 = 4 * 1024 * 1024;
/// The most that it claims ahead; as much again as it has, until then.
const MAX_AHEAD_BYTES: u64 = 64 * 1024 * 1024;

impl Files {
    /// Whether the disk has room for more; for whatever is about to store something for a client.
    ///
    /// # Errors
    ///
    /// Only [`WriteFileError::NoDisk`].
    pub fn check_disk(&self) -> Result<(), WriteFileError> {
        if self.options.reserve.has_room() { Ok(()) } else { Err(WriteFileError::NoDisk) }
    }
}

impl Upload {
    /// Before more of it is written: the disk has room, and so has its account.
    pub(crate) async fn make_room(&mut self, more: u64) -> Result<(), WriteFileError> {
        let before = self.written;
        self.written = before.saturating_add(more);
        if self.written > self.limit {
            return Err(WriteFileError::TooLarge { limit: self.limit });
        }
        let Some(claimed) = self.claimed else { return Ok(()) };
        if before / LOOK_BYTES != self.written / LOOK_BYTES {
            self.files.check_disk()?;
        }
        if self.written <= claimed {
            return Ok(());
        }
        let ahead = self.written.min(MAX_AHEAD_BYTES);
        let bounds = &self.files.options.bounds;
        let (rows, account, id) = (self.files.rows(), self.account, self.id);
        let mut wanted = self.written.saturating_add(ahead).min(self.limit);
        // What is here may fit where what may follow does not. Smaller each time, since so much was not left.
        while let Err(cause) = rows.claim_file(account, id, wanted, bounds).await {
            wanted = match cause {
                ClaimFileError::NoRoom { left, .. } if (self.written..wanted).contains(&left) => {
                    left.min(self.written.saturating_add(LOOK_BYTES))
                }
                cause => return Err(cause.into()),
            };
        }
        self.claimed = Some(wanted);
        Ok(())
    }
}

impl From<ClaimFileError> for WriteFileError {
    fn from(cause: ClaimFileError) -> Self {
        match cause {
            ClaimFileError::NoRoom { room: FileRoom { bytes, files }, without_credit, .. } => {
                Self::NoRoom { bytes, files, without_credit }
            }
            ClaimFileError::Gone => Self::TooLate,
            ClaimFileError::Store(cause) => Self::Store(cause),
        }
    }
}
