//! Holds: `[video]`: how films are made and kept.

use std::time::Duration;

use batchin_batch::FilmsOptions;
use batchin_settings::{Kind, Preset, Scope, Setting, settings};

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const KEEP_HOURS: Setting = Setting {
        path: "video.keep_hours",
        kind: Kind::Integer { min: 1, max: 87_600 },
        preset: Preset::Integer(168),
        doc: "How long a film is kept after it was made; what became of a job that brought none, too.",
    };
    const TIMEOUT_MINUTES: Setting = Setting {
        path: "video.timeout_minutes",
        kind: Kind::Integer { min: 1, max: 10_080 },
        preset: Preset::Integer(60),
        doc: "How long a model server may take for one film; then the job fails, for nothing.",
    };
    const MAX_SECONDS: Setting = Setting {
        path: "video.max_seconds",
        kind: Kind::Integer { min: 1, max: 60 },
        preset: Preset::Integer(60),
        doc: "The longest film that can be asked for, in seconds.",
    };
    const MAX_OPEN: Setting = Setting {
        path: "video.max_open_per_account",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        preset: Preset::Integer(100),
        doc: "Most films of one account that are asked for and not made yet; another one is answered with 429.",
    };
    const CONCURRENCY: Setting = Setting {
        path: "video.concurrency",
        kind: Kind::Integer { min: 1, max: 10_000 },
        preset: Preset::Integer(64),
        doc: "Most films that this process has made at once; the upstreams' slots limit it further. Of one account at most \
              three quarters.",
    };
}

pub(super) fn read(scope: &Scope<'_>) -> FilmsOptions {
    FilmsOptions {
        keep: Duration::from_secs(scope.integer(&KEEP_HOURS).saturating_mul(3_600)),
        timeout: Duration::from_secs(scope.integer(&TIMEOUT_MINUTES).saturating_mul(60)),
        max_seconds: scope.count(&MAX_SECONDS),
        max_open: scope.integer(&MAX_OPEN),
        concurrency: scope.count(&CONCURRENCY),
    }
}
