//! Holds: `[files]`: what may be uploaded.

use super::reader::Scope;
use super::setting::{Kind, Preset, Setting};

/// `[files]`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// Largest file that is uploaded, in bytes.
    pub max_bytes: u64,
}

const MAX_BYTES: Setting = Setting {
    path: "files.max_bytes",
    // A bucket takes 10,000 parts of five megabytes.
    kind: Kind::Integer { min: 1_024, max: 40_000_000_000 },
    preset: Preset::Integer(1_000_000_000),
    doc: "Largest file that is uploaded in bytes; a larger one is answered with 413.",
};

pub(super) const SETTINGS: &[&Setting] = &[&MAX_BYTES];

impl Files {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { max_bytes: scope.size(&MAX_BYTES) as u64 }
    }
}
