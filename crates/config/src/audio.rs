//! Holds: `[audio]`: sound that requests bring.

use batchin_settings::{Kind, Preset, Scope, Setting, settings};

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const MAX_UPLOAD_BYTES: Setting = Setting {
        path: "audio.max_upload_bytes",
        kind: Kind::Integer { min: 1_024, max: 10_000_000_000 },
        preset: Preset::Integer(100_000_000),
        doc: "Largest file of sound in a request, in bytes; a larger one is answered with 413. It lies in `uploads` in the \
              data folder while its request lasts, and counts among `files.max_uploads`.",
    };
}

/// What requests may bring.
#[derive(Clone, Copy, Debug)]
pub struct Audio {
    /// Largest file of sound, in bytes.
    pub max_upload_bytes: u64,
}

impl Audio {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { max_upload_bytes: scope.integer(&MAX_UPLOAD_BYTES) }
    }
}
