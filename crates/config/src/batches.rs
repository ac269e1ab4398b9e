//! Holds: `[batches]`: how much a batch may bring and how its tasks are run.

use std::time::Duration;

use batchin_batch::{OpenLimits, WorkerOptions};
use batchin_settings::{Kind, Preset, Scope, Setting, settings};

/// `[batches]`, checked.
#[derive(Debug, Clone, Copy)]
pub struct Batches {
    /// Largest JSON of an inline batch, in bytes.
    pub max_inline_bytes: usize,
    /// How their tasks are run.
    pub worker: WorkerOptions,
    /// How many batches of an account may be open at once.
    pub open: OpenLimits,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const MAX_INLINE_BYTES: Setting = Setting {
        path: "batches.max_inline_bytes",
        kind: Kind::Integer { min: 1_024, max: 100_000_000 },
        preset: Preset::Integer(2_000_000),
        doc: "Largest JSON of a batch in bytes; a larger one is answered with 413.",
    };
    const CONCURRENCY: Setting = Setting {
        path: "batches.concurrency",
        kind: Kind::Integer { min: 1, max: 10_000 },
        preset: Preset::Integer(256),
        doc: "Most tasks that this process runs at once; the upstreams' slots and interactive requests limit it further. \
              Answered ones that are being stored do not count. \
              Where some models have all of them, the others share half as many more, at least one each.",
    };
    const MAX_ATTEMPTS: Setting = Setting {
        path: "batches.max_attempts",
        kind: Kind::Integer { min: 1, max: 100 },
        preset: Preset::Integer(5),
        doc: "How often a task is tried before it fails. Giving way to interactive work does not count.",
    };
    const RETENTION_HOURS: Setting = Setting {
        path: "batches.retention_hours",
        kind: Kind::Integer { min: 1, max: 87_600 },
        preset: Preset::Integer(720),
        doc: "How long a batch's tasks, results and output files are kept after its end; its counts and its cost stay.",
    };
    const MAX_OPEN: Setting = Setting {
        path: "batches.max_open_per_account",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        preset: Preset::Integer(1_000),
        doc: "Most batches of one account that have not ended; another one is answered with 429.",
    };
    const MAX_OPEN_UNFUNDED: Setting = Setting {
        path: "batches.max_open_without_credit",
        kind: Kind::Integer { min: 0, max: 1_000_000 },
        preset: Preset::Integer(10),
        doc: "The same for an account that has no credit.",
    };
}

impl Batches {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self {
            max_inline_bytes: scope.size(&MAX_INLINE_BYTES),
            worker: WorkerOptions {
                concurrency: scope.size(&CONCURRENCY),
                max_attempts: scope.count(&MAX_ATTEMPTS),
                retention: Duration::from_secs(scope.integer(&RETENTION_HOURS).saturating_mul(3_600)),
            },
            open: OpenLimits { funded: scope.integer(&MAX_OPEN), unfunded: scope.integer(&MAX_OPEN_UNFUNDED) },
        }
    }
}
