//! Holds: `[server]`: where it listens, what it plays, and how much it takes on.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use batchin_gateway::{FLEX_PATIENCE, GatewayOptions};
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use batchin_webhooks::{MIN_KEY_CHARS, MasterKey, ShortKey};
use ipnet::IpNet;
use url::Url;

/// `[server]`, checked.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where HTTP is answered; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The address that clients use, for links in answers.
    pub public_url: Url,
    /// Where the default database, blobs and model weights lie.
    pub data_dir: PathBuf,
    /// What webhook secrets are sealed with; the data folder's own without.
    pub secret_key: Option<MasterKey>,
    /// What this process does.
    pub roles: Roles,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Most requests in progress at once, and what one account may have of them, of body memory and of uploads.
    pub gateway: GatewayOptions,
    /// Most connections at once; more are refused.
    pub max_connections: u64,
    /// What one network address may have of them while it is alone, in percent.
    pub max_address_percent: u64,
    /// Least that a request's body brings while it is waited for, in bytes a second; zero turns that off.
    pub min_body_bytes_per_second: u64,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Origins whose pages may call; `*` for all.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long shutdown waits for requests in progress.
    pub shutdown_grace: Duration,
    /// How long this node may spend and run tasks without a word from the database.
    pub node_lease: Duration,
}

/// What a process does; at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Answers HTTP.
    pub api: bool,
    /// Runs batch tasks.
    pub worker: bool,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    pub(crate) const LISTEN: Setting = Setting {
        path: "server.listen",
        kind: Kind::Address,
        preset: Preset::Text("127.0.0.1:8080"),
        doc: "Address and port on which HTTP is answered. 0.0.0.0:8080 takes requests from other machines.",
    };
    const PUBLIC_URL: Setting = Setting {
        path: "server.public_url",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Follows { example: "\"http://127.0.0.1:8080\"", other: "server.listen" },
        doc: "The address under which clients reach the server; links in answers begin with it.",
    };
    pub(crate) const DATA_DIR: Setting = Setting {
        path: "server.data_dir",
        kind: Kind::Path,
        preset: Preset::Text("data"),
        doc: "Folder of the default database, blobs and model weights. Relative paths begin at the working directory.",
    };
    const SECRET_KEY: Setting = Setting {
        path: "server.secret_key",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"at least 32 random characters\"" },
        doc: "What the webhook secrets in the database are sealed with; must be the same on all nodes of one database. \
              Without it, the first start makes one in the data folder (secret_key), which only suffices for one node. \
              Keep a copy: without it every account needs a new webhook secret.",
    };
    pub(crate) const ROLES: Setting = Setting {
        path: "server.roles",
        kind: Kind::ListOf(&["api", "worker"]),
        preset: Preset::List(&["api", "worker"]),
        doc: "What this process does: api answers requests, worker runs batch tasks.",
    };
    const TLS_CERT_FILE: Setting = Setting {
        path: "server.tls_cert_file",
        kind: Kind::Path,
        preset: Preset::Absent { example: "\"/etc/batchin/cert.pem\"" },
        doc: "Certificate chain in PEM, leaf first. With tls_key_file, HTTPS is spoken in place of HTTP.",
    };
    const TLS_KEY_FILE: Setting = Setting {
        path: "server.tls_key_file",
        kind: Kind::Path,
        preset: Preset::Absent { example: "\"/etc/batchin/key.pem\"" },
        doc: "Private key of the certificate, in PEM.",
    };
    const MAX_BODY_BYTES: Setting = Setting {
        path: "server.max_body_bytes",
        kind: Kind::Integer { min: 1_024, max: 1_000_000_000 },
        preset: Preset::Integer(10_000_000),
        doc: "Largest request body in bytes; a larger one is answered with 413.",
    };
    const MAX_IN_FLIGHT: Setting = Setting {
        path: "server.max_in_flight",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        preset: Preset::Integer(2_048),
        doc: "Most requests in progress at once; one more is refused with 503 at once rather than queued.",
    };
    const MAX_ACCOUNT_PERCENT: Setting = Setting {
        path: "server.max_account_percent",
        kind: Kind::Integer { min: 1, max: 100 },
        preset: Preset::Integer(90),
        doc: "What one account may have of requests in progress, memory for bodies, uploads and requests that wait under \
              an Idempotency-Key, while nobody else has any. Others always find room: with 90, an account may have nine \
              times of what is free. 100 turns it off.",
    };
    const MAX_CONNECTIONS: Setting = Setting {
        path: "server.max_connections",
        kind: Kind::Integer { min: 16, max: 1_000_000 },
        preset: Preset::Integer(8_192),
        doc: "Most connections open at once, idle ones too; one more is answered with 503 and closed, or only closed with \
              TLS. Each is a file to the system: the limit (ulimit -n) is raised as far as it may be.",
    };
    const MAX_ADDRESS_PERCENT: Setting = Setting {
        path: "server.max_address_percent",
        kind: Kind::Integer { min: 1, max: 100 },
        preset: Preset::Integer(50),
        doc: "What one network address (of IPv6, a /64) may have of the connections while nobody else has any, and of the \
              memory for bodies that come without a key. Others always find room: with 50, an address may have as many \
              as are free. trusted_proxies may have all; 100 turns it off.",
    };
    const MIN_BODY_BYTES_PER_SECOND: Setting = Setting {
        path: "server.min_body_bytes_per_second",
        kind: Kind::Integer { min: 0, max: 1_000_000 },
        preset: Preset::Integer(500),
        doc: "Least that a request body or an upload brings while it is waited for, over 20 seconds; slower ones are \
              answered with 408. 0 turns it off.",
    };
    const WRITE_TIMEOUT_SECONDS: Setting = Setting {
        path: "server.write_timeout_seconds",
        // Above the pause of a stream's keep-alive.
        kind: Kind::Integer { min: 20, max: 3_600 },
        preset: Preset::Integer(60),
        doc: "How long a client may take nothing of its answer before its connection is closed, or its stream of HTTP/2 \
              reset; what is streamed is charged for what was delivered.",
    };
    const CORS_ORIGINS: Setting = Setting {
        path: "server.cors_origins",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Origins whose pages may call from a browser, such as \"https://app.example.com\"; \"*\" for all. A key in a \
              page is everybody's who opens it.",
    };
    const TRUSTED_PROXIES: Setting = Setting {
        path: "server.trusted_proxies",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Networks of the proxies in front, such as \"10.0.0.0/8\"; only their X-Forwarded-For is believed, \
              and they may have more connections than one address.",
    };
    const SHUTDOWN_GRACE_SECONDS: Setting = Setting {
        path: "server.shutdown_grace_seconds",
        kind: Kind::Integer { min: 0, max: 3_600 },
        preset: Preset::Integer(30),
        doc: "How long a shutdown waits for requests in progress, once no more are taken.",
    };
    const NODE_LEASE_SECONDS: Setting = Setting {
        path: "server.node_lease_seconds",
        kind: Kind::Integer { min: 1, max: 600 },
        preset: Preset::Integer(10),
        doc: "How long this node may spend and run tasks without a word from the database; others take over after it.",
    };
}

impl Server {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        let listen = scope.address(&LISTEN);
        let tls = tls_files(scope);
        Self {
            listen,
            public_url: scope.optional_url(&PUBLIC_URL).unwrap_or_else(|| url_of(listen, tls.is_some())),
            data_dir: PathBuf::from(scope.text(&DATA_DIR)),
            secret_key: secret_key(scope),
            roles: roles(scope),
            tls,
            max_body_bytes: scope.size(&MAX_BODY_BYTES),
            gateway: GatewayOptions {
                max_in_flight: scope.size(&MAX_IN_FLIGHT),
                max_account_percent: scope.integer(&MAX_ACCOUNT_PERCENT),
                flex_patience: FLEX_PATIENCE,
            },
            max_connections: scope.integer(&MAX_CONNECTIONS),
            max_address_percent: scope.integer(&MAX_ADDRESS_PERCENT),
            min_body_bytes_per_second: scope.integer(&MIN_BODY_BYTES_PER_SECOND),
            write_timeout: Duration::from_secs(scope.integer(&WRITE_TIMEOUT_SECONDS)),
            cors_origins: origins(scope),
            trusted_proxies: networks(scope, &TRUSTED_PROXIES),
            shutdown_grace: Duration::from_secs(scope.integer(&SHUTDOWN_GRACE_SECONDS)),
            node_lease: Duration::from_secs(scope.integer(&NODE_LEASE_SECONDS)),
        }
    }
}

fn roles(scope: &Scope<'_>) -> Roles {
    let names = scope.list(&ROLES);
    let has = |wanted: &str| names.iter().any(|(name, _)| name == wanted);
    let roles = Roles { api: has("api"), worker: has("worker") };
    if !roles.api && !roles.worker {
        scope.fault(&ROLES, FaultKind::Value, "must name at least one of api, worker");
    }
    roles
}

fn tls_files(scope: &Scope<'_>) -> Option<TlsFiles> {
    match (scope.readable_file(&TLS_CERT_FILE), scope.readable_file(&TLS_KEY_FILE)) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (Some(_), None) => {
            scope.fault(&TLS_CERT_FILE, FaultKind::Missing, "is set without server.tls_key_file");
            None
        }
        (None, Some(_)) => {
            scope.fault(&TLS_KEY_FILE, FaultKind::Missing, "is set without server.tls_cert_file");
            None
        }
        (None, None) => None,
    }
}

fn secret_key(scope: &Scope<'_>) -> Option<MasterKey> {
    let too_short = |ShortKey| {
        let message = format!("must have at least {MIN_KEY_CHARS} characters, all of them random");
        scope.fault(&SECRET_KEY, FaultKind::Value, message);
    };
    MasterKey::new(scope.secret(&SECRET_KEY)?).map_err(too_short).ok()
}

/// Origins as browsers send them, which compare them byte for byte.
fn origins(scope: &Scope<'_>) -> Vec<String> {
    let origin = |(text, place): (String, _)| {
        let sent = Url::parse(&text).map(|url| url.origin().ascii_serialization());
        if text == "*" || sent.is_ok_and(|sent| sent == text && sent != "null") {
            return Some(text);
        }
        let message = format!(
            "{}: \"{text}\" is no origin such as \"https://app.example.com\", without a path or a slash at its end",
            CORS_ORIGINS.path
        );
        scope.faults.add(&place, FaultKind::Value, message);
        None
    };
    scope.list(&CORS_ORIGINS).into_iter().filter_map(origin).collect()
}

/// A list of addresses and networks.
pub(super) fn networks(scope: &Scope<'_>, setting: &Setting) -> Vec<IpNet> {
    let parse = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = |(text, place): (String, _)| {
        let parsed = parse(&text);
        if parsed.is_none() {
            let message = format!("{}: \"{text}\" is no address or network such as 10.0.0.0/8", setting.path);
            scope.faults.add(&place, FaultKind::Value, message);
        }
        parsed
    };
    scope.list(setting).into_iter().filter_map(network).collect()
}

#[expect(clippy::expect_used, reason = "a scheme, an address and a port always make a URL")]
fn url_of(listen: SocketAddr, with_tls: bool) -> Url {
    let scheme = if with_tls { "https" } else { "http" };
    Url::parse(&format!("{scheme}://{listen}")).expect("a socket address is a valid authority")
}
