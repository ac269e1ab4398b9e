//! Holds: `[files]`: what may be uploaded and kept.

use std::path::PathBuf;

use batchin_files::{DiskReserve, FileBounds, FileRoom, FilesOptions};
use batchin_settings::{Kind, Preset, Scope, Setting, settings};

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const MAX_BYTES: Setting = Setting {
        path: "files.max_bytes",
        // A bucket takes 10,000 parts of five megabytes.
        kind: Kind::Integer { min: 1_024, max: 40_000_000_000 },
        preset: Preset::Integer(1_000_000_000),
        doc: "Largest file that is uploaded in bytes; a larger one is answered with 413.",
    };
    const MAX_UPLOADS: Setting = Setting {
        path: "files.max_uploads",
        kind: Kind::Integer { min: 1, max: 10_000 },
        preset: Preset::Integer(32),
        doc: "Uploads at once on this node, each with a few parts of five megabytes in memory; more are refused with 503, \
              or with 429 where an account has its share.",
    };
    const MAX_ACCOUNT_BYTES: Setting = Setting {
        path: "files.max_account_bytes",
        kind: Kind::Integer { min: 0, max: 1_000_000_000_000_000 },
        preset: Preset::Integer(100_000_000_000),
        doc: "What one account may keep in files, in bytes; more is refused with 413. What batches wrote does not count.",
    };
    const MAX_ACCOUNT_FILES: Setting = Setting {
        path: "files.max_account_files",
        kind: Kind::Integer { min: 0, max: 1_000_000 },
        preset: Preset::Integer(10_000),
        doc: "How many files one account may keep, with the inputs of its batches.",
    };
    const MAX_BYTES_WITHOUT_CREDIT: Setting = Setting {
        path: "files.max_bytes_without_credit",
        kind: Kind::Integer { min: 0, max: 1_000_000_000_000_000 },
        preset: Preset::Integer(100_000_000),
        doc: "What an account whose balance is zero may keep in files, in bytes; more is refused with 402.",
    };
    const MAX_FILES_WITHOUT_CREDIT: Setting = Setting {
        path: "files.max_files_without_credit",
        kind: Kind::Integer { min: 0, max: 1_000_000 },
        preset: Preset::Integer(100),
        doc: "How many files an account whose balance is zero may keep, with the inputs of its batches.",
    };
    const MIN_FREE_DISK_BYTES: Setting = Setting {
        path: "files.min_free_disk_bytes",
        kind: Kind::Integer { min: 0, max: 1_000_000_000_000 },
        preset: Preset::Integer(200_000_000),
        doc: "Free space that uploads and batches leave on the disks of blobs and database; below it they are refused with \
              507, and everything else goes on. 0 turns it off.",
    };
}

/// `folders` are those of whose disks some is left alone, `spool` is for what requests bring; of uploads, one account may have
/// `max_account_percent`.
pub(super) fn read(
    scope: &Scope<'_>,
    (folders, spool): (Vec<PathBuf>, PathBuf),
    max_account_percent: u64,
) -> FilesOptions {
    FilesOptions {
        max_bytes: scope.integer(&MAX_BYTES),
        max_uploads: scope.integer(&MAX_UPLOADS),
        max_account_percent,
        bounds: FileBounds {
            room: FileRoom { bytes: scope.integer(&MAX_ACCOUNT_BYTES), files: scope.integer(&MAX_ACCOUNT_FILES) },
            without_credit: FileRoom {
                bytes: scope.integer(&MAX_BYTES_WITHOUT_CREDIT),
                files: scope.integer(&MAX_FILES_WITHOUT_CREDIT),
            },
        },
        reserve: DiskReserve { folders, bytes: scope.integer(&MIN_FREE_DISK_BYTES) },
        spool,
    }
}
