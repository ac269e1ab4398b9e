//! Holds: `[webhooks]`: where customers may be told, and for how long it is remembered.

use std::net::IpAddr;
use std::time::Duration;

use batchin_domain::webhook::TargetPolicy;
use batchin_settings::{Kind, Preset, Scope, Setting, settings};
use ipnet::IpNet;

use super::server::networks;

const SECONDS_PER_DAY: u64 = 24 * 3_600;

/// `[webhooks]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Where they may go.
    pub targets: TargetPolicy,
    /// How long deliveries that have ended are kept.
    pub retention: Duration,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const ALLOW_HTTP: Setting = Setting {
        path: "webhooks.allow_http",
        kind: Kind::Flag,
        preset: Preset::Flag(false),
        doc: "Whether webhooks may go to http:// and not only to https://.",
    };
    const ALLOW_CIDRS: Setting = Setting {
        path: "webhooks.allow_cidrs",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Private networks, such as \"10.1.0.0/16\", to which webhooks may go; otherwise only public addresses are \
              connected to, whatever a name resolves to.",
    };
    const OWN_CIDRS: Setting = Setting {
        path: "webhooks.own_cidrs",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Your own public addresses, to which webhooks must not go although they are public.",
    };
    const RETENTION_DAYS: Setting = Setting {
        path: "webhooks.retention_days",
        kind: Kind::Integer { min: 1, max: 3_650 },
        preset: Preset::Integer(30),
        doc: "How long deliveries that have ended can be listed and replayed.",
    };
}

impl Webhooks {
    /// What the server listens on is its own, if it is one address.
    pub(super) fn read(scope: &Scope<'_>, listen: IpAddr) -> Self {
        let mut own = networks(scope, &OWN_CIDRS);
        own.extend(Some(listen).filter(|ip| !ip.is_unspecified()).map(IpNet::from));
        Self {
            targets: TargetPolicy { allow_http: scope.flag(&ALLOW_HTTP), allow: networks(scope, &ALLOW_CIDRS), own },
            retention: Duration::from_secs(scope.integer(&RETENTION_DAYS) * SECONDS_PER_DAY),
        }
    }
}
