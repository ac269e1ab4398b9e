//! Holds: how much of a disk stays free.

use std::path::PathBuf;

use tracing::warn;

/// Free space that uploads and batches leave alone, so that money still moves when they have filled the rest.
#[derive(Clone, Debug, Default)]
pub struct DiskReserve {
    /// Folders on the disks that are looked at.
    pub folders: Vec<PathBuf>,
    /// What is to stay free on each of them, in bytes; zero looks at nothing.
    pub bytes: u64,
}

impl DiskReserve {
    /// Whether more may be written.
    pub(crate) fn has_room(&self) -> bool {
        let is_short = |folder: &PathBuf| match rustix::fs::statvfs(folder) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < self.bytes,
            Err(cause) => {
                // Whoever writes there will find out.
                warn!(error = &cause as &dyn std::error::Error, "it is not known how much room a disk has");
                false
            }
        };
        self.bytes == 0 || !self.folders.iter().any(is_short)
    }
}
