//! Holds: `[users]` and `[keys]`: who may register, and what a new key may do.

use batchin_settings::{Kind, Preset, Scope, Setting, settings};
use secrecy::SecretString;

/// `[users]`, checked.
#[derive(Debug, Clone)]
pub struct Users {
    /// What a site's back end sends as `X-Internal-Token` with the public calls.
    pub internal_token: Option<SecretString>,
    /// Whether the look-up by email is open on any address and through proxies, without a token.
    pub public_lookup: bool,
    /// Whether new users may be made over HTTP.
    pub registration_open: bool,
}

/// `[keys]`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Requests a minute of a key that was made without a limit.
    pub default_rate_limit_rpm: u32,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const INTERNAL_TOKEN: Setting = Setting {
        path: "users.internal_token",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"a long random text\"" },
        doc: "When set, registration, login and look-up by email demand it as X-Internal-Token.",
    };
    const PUBLIC_LOOKUP: Setting = Setting {
        path: "users.public_lookup",
        kind: Kind::Flag,
        preset: Preset::Flag(false),
        doc: "The look-up by email shows a balance to whoever knows an email. It is open while the server listens on \
              loopback and no proxy is in front of it; elsewhere it needs the internal token, or this.",
    };
    const REGISTRATION_OPEN: Setting = Setting {
        path: "users.registration_open",
        kind: Kind::Flag,
        preset: Preset::Flag(true),
        doc: "Whether POST /v1/users makes new users. `batchin user create` always does.",
    };
}

settings! {
    pub(super) const KEYS_SETTINGS: &[&Setting];

    const DEFAULT_RATE_LIMIT_RPM: Setting = Setting {
        path: "keys.default_rate_limit_rpm",
        kind: Kind::Integer { min: 1, max: 10_000_000 },
        preset: Preset::Integer(600),
        doc: "Requests a minute of a key that was made without rate_limit_rpm.",
    };
}

impl Users {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self {
            internal_token: scope.secret(&INTERNAL_TOKEN),
            public_lookup: scope.flag(&PUBLIC_LOOKUP),
            registration_open: scope.flag(&REGISTRATION_OPEN),
        }
    }
}

impl Keys {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { default_rate_limit_rpm: scope.count(&DEFAULT_RATE_LIMIT_RPM) }
    }
}
