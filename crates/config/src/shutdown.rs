//! Holds: `[shutdown]`: how the server goes out of service.

use std::time::Duration;

use batchin_settings::{Kind, Preset, Scope, Setting, settings};

/// `[shutdown]`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests are still taken after SIGTERM, while `/readyz` says that there should be none.
    pub drain: Duration,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const DRAIN_SECONDS: Setting = Setting {
        path: "shutdown.drain_seconds",
        kind: Kind::Integer { min: 0, max: 600 },
        preset: Preset::Integer(1),
        doc: "How long requests are still taken after SIGTERM while /readyz answers 503, so that balancers look away first. \
              Set it a little above their interval.",
    };
}

impl Shutdown {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { drain: Duration::from_secs(scope.integer(&DRAIN_SECONDS)) }
    }
}
