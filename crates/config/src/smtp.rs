//! Holds: `[smtp]`: the server that mail leaves by.

use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use batchin_webhooks::{MailOptions, MailSecurity, Mailbox};
use secrecy::SecretString;
use url::Url;

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const HOST: Setting = Setting {
        path: "smtp.host",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"smtp.example.com\"" },
        doc: "The mail server that alerts leave by. Left out: no mail is sent, and owners of accounts are told by webhook alone.",
    };
    const PORT: Setting = Setting {
        path: "smtp.port",
        kind: Kind::Integer { min: 1, max: 65_535 },
        preset: Preset::Absent { example: "587" },
        doc: "Its port. Left out: 587 with starttls, 465 with tls, 25 with none.",
    };
    const TLS: Setting = Setting {
        path: "smtp.tls",
        kind: Kind::OneOf(&["starttls", "tls", "none"]),
        preset: Preset::Text("starttls"),
        doc: "How the connection is kept from others' eyes: starttls begins TLS once connected, and sends nothing without it; tls \
              speaks it from the first byte; none is for a server on this machine.",
    };
    const USERNAME: Setting = Setting {
        path: "smtp.username",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"batchin\"" },
        doc: "The user name there. Left out: the server takes mail from this machine as it is.",
    };
    const PASSWORD: Setting = Setting {
        path: "smtp.password",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"…\"" },
        doc: "Its password.",
    };
    const FROM: Setting = Setting {
        path: "smtp.from",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"BatchIn <noreply@example.com>\"" },
        doc: "Whom mail is from; needed with smtp.host.",
    };
    const REPLY_TO: Setting = Setting {
        path: "smtp.reply_to",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"support@example.com\"" },
        doc: "Where answers go, if not there.",
    };
}

/// `None`: no mail is sent.
pub(super) fn read(scope: &Scope<'_>, public_url: &Url) -> Option<MailOptions> {
    // Everything is read before anything is missed, so that every fault comes at once.
    let (host, port) = (scope.optional_text(&HOST), scope.optional_integer(&PORT));
    let security = match scope.text(&TLS).as_str() {
        "none" => MailSecurity::None,
        "tls" => MailSecurity::Tls,
        _ => MailSecurity::StartTls,
    };
    let credentials = credentials(scope);
    let (from, reply_to) = (mailbox(scope, &FROM), mailbox(scope, &REPLY_TO));
    let Some(host) = host else {
        let wanted = [&PORT, &USERNAME, &PASSWORD, &FROM, &REPLY_TO].into_iter().find(|setting| scope.is_set(setting));
        if let Some(wanted) = wanted.filter(|_| !scope.is_set(&HOST)) {
            scope.fault(&HOST, FaultKind::Value, format!("is missing; {} is set, so mail is wanted", wanted.path));
        }
        return None;
    };
    if !is_host(&host) {
        scope.fault(
            &HOST,
            FaultKind::Value,
            "must be a host name or an address such as smtp.example.com, without a port",
        );
    }
    let Some(from) = from else {
        if !scope.is_set(&FROM) {
            scope.fault(&FROM, FaultKind::Value, "is missing; smtp.host is set, and every mail is from somebody");
        }
        return None;
    };
    let usual = match security {
        MailSecurity::StartTls => 587,
        MailSecurity::Tls => 465,
        MailSecurity::None => 25,
    };
    Some(MailOptions {
        host,
        port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(usual),
        security,
        credentials,
        from,
        reply_to,
        service: public_url.as_str().trim_end_matches('/').to_owned(),
    })
}

/// A word on a password that others could read.
pub(super) fn warning(options: &MailOptions) -> Option<String> {
    let is_open = options.security == MailSecurity::None && options.credentials.is_some() && !is_here(&options.host);
    is_open.then(|| {
        "smtp.password goes to smtp.host without TLS, where whoever is on the way can read it; set smtp.tls = \"starttls\""
            .to_owned()
    })
}

fn credentials(scope: &Scope<'_>) -> Option<(String, SecretString)> {
    match (scope.optional_text(&USERNAME), scope.secret(&PASSWORD)) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(_), None) if !scope.is_set(&PASSWORD) => {
            scope.fault(&PASSWORD, FaultKind::Value, "is missing; smtp.username is set");
            None
        }
        (None, Some(_)) if !scope.is_set(&USERNAME) => {
            scope.fault(&USERNAME, FaultKind::Value, "is missing; smtp.password is set");
            None
        }
        // What is set and wrong has been told of.
        (Some(_) | None, Some(_) | None) => None,
    }
}

fn mailbox(scope: &Scope<'_>, setting: &Setting) -> Option<Mailbox> {
    let text = scope.optional_text(setting)?;
    let parsed = text.parse().ok().filter(|_| !text.contains(char::is_control));
    if parsed.is_none() {
        let message = "must be an e-mail address such as noreply@example.com or \"BatchIn <noreply@example.com>\"";
        scope.fault(setting, FaultKind::Value, message);
    }
    parsed
}

/// A name or an address, and nothing beside it.
fn is_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
        || (!text.contains([':', '/', '@', '[', ' ']) && url::Host::parse(text).is_ok())
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
