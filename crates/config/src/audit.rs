//! Holds: `[audit]`: the audit log.

use batchin_receipts::Origin;
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use url::Url;

/// `[audit]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The name of a log that is begun.
    pub origin: Origin,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const ORIGIN: Setting = Setting {
        path: "audit.origin",
        kind: Kind::Text,
        preset: Preset::Follows { example: "\"127.0.0.1:8080/audit/log\"", other: "server.public_url" },
        doc: "The name of the audit log: where it is served, without https://. A log keeps the name that it was begun with, \
              whatever stands here later.",
    };
}

impl Audit {
    pub(super) fn read(scope: &Scope<'_>, public_url: &Url) -> Self {
        let by_default = || {
            let (_, place) = public_url.as_str().split_once("://").unwrap_or_default();
            format!("{}/audit/log", place.trim_end_matches('/'))
        };
        let text = scope.optional_text(&ORIGIN).unwrap_or_else(by_default);
        let origin = text.parse().or_else(|_| {
            let message = "must be 1 to 255 characters without blanks and +, such as \"api.example.com/audit/log\"";
            scope.fault(&ORIGIN, FaultKind::Value, message);
            by_default().parse()
        });
        Self { origin: origin.unwrap_or_default() }
    }
}
