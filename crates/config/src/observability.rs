//! Holds: `[log]`, `[telemetry]` and `[metrics]`: what the server says about itself.

use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::Url;

/// `[log]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Filter as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// `[telemetry]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where traces go, by OTLP over HTTP; no traces without.
    pub otlp_endpoint: Option<Url>,
}

/// `[metrics]`, checked.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Whether `/metrics` answers.
    pub enabled: bool,
    /// Demanded as bearer token when set.
    pub token: Option<SecretString>,
}

settings! {
    pub(super) const LOG_SETTINGS: &[&Setting];

    const FORMAT: Setting = Setting {
        path: "log.format",
        kind: Kind::OneOf(&["auto", "pretty", "json"]),
        preset: Preset::Text("auto"),
        doc: "pretty, json, or auto: pretty on a terminal and JSON otherwise.",
    };
    const LEVEL: Setting = Setting {
        path: "log.level",
        kind: Kind::Text,
        preset: Preset::Text("info"),
        doc: "off, error, warn, info, debug or trace; also by module: \"info,batchin_gateway=debug\".",
    };
}

settings! {
    pub(super) const TELEMETRY_SETTINGS: &[&Setting];

    const OTLP_ENDPOINT: Setting = Setting {
        path: "telemetry.otlp_endpoint",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Absent { example: "\"http://127.0.0.1:4318\"" },
        doc: "OpenTelemetry collector that traces go to, by OTLP over HTTP. Left out: no traces.",
    };
}

settings! {
    pub(super) const METRICS_SETTINGS: &[&Setting];

    const METRICS_ENABLED: Setting = Setting {
        path: "metrics.enabled",
        kind: Kind::Flag,
        preset: Preset::Flag(true),
        doc: "Whether /metrics answers, in Prometheus' format.",
    };
    const METRICS_TOKEN: Setting = Setting {
        path: "metrics.token",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"a long random text\"" },
        doc: "When set, /metrics demands it as bearer token.",
    };
}

/// What is logged, from nothing to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter takes a word that is no level for the name of a module of which everything is logged: a mistyped level
/// would be quiet about all else. With a level after the name, nobody has mistyped one.
fn is_directive(part: &str) -> bool {
    let is_level = |text: &str| LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level));
    match part.rsplit_once('=') {
        // `[span{field=value}]=level` has its level after the last bracket.
        Some((name, level)) if !level.contains(']') => !name.is_empty() && is_level(level),
        Some(_) => part.ends_with(']'),
        None => is_level(part),
    }
}

impl Log {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        let level = scope.text(&LEVEL);
        if let Some(part) = level.split(',').map(str::trim).find(|part| !is_directive(part)) {
            let levels = LEVELS.join(", ");
            let message =
                format!("\"{part}\" is no level ({levels}) and none of a module, such as batchin_gateway=debug");
            scope.fault(&LEVEL, FaultKind::Value, message);
        } else if let Err(error) = EnvFilter::try_new(&level) {
            scope.fault(&LEVEL, FaultKind::Value, format!("is no log filter: {error}"));
        }
        let format = match scope.text(&FORMAT).as_str() {
            "pretty" => LogFormat::Pretty,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        Self { format, level }
    }
}

impl Telemetry {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { otlp_endpoint: scope.optional_url(&OTLP_ENDPOINT) }
    }
}

impl Metrics {
    pub(super) fn read(scope: &Scope<'_>) -> Self {
        Self { enabled: scope.flag(&METRICS_ENABLED), token: scope.secret(&METRICS_TOKEN) }
    }
}
