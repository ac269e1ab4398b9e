//! Holds: `[[upstreams]]`: the model servers.

use std::collections::HashSet;
use std::time::Duration;

use batchin_settings::{Collector, Document, FaultKind, Kind, Preset, Scope, Setting};
use batchin_upstream::LimitName;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

/// The name of the upstream that needs no entry: the embedded engine.
pub const ENGINE_UPSTREAM: &str = "engine";

/// One `[[upstreams]]`, checked.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Unique; models refer to it.
    pub name: String,
    /// What speaks there.
    pub kind: UpstreamKind,
    /// Secret to it; none for most servers of one's own.
    pub api_key: Option<SecretString>,
    /// Requests it runs at once; learned when absent.
    pub slots: Option<u32>,
    /// How long each part of a call may take.
    pub timeouts: Timeouts,
    /// Whether it was started with priority scheduling.
    pub priority_enabled: bool,
    /// The name by which it reads the limit of an answer's tokens.
    pub limit_name: LimitName,
    /// Whether its streams are asked for their usage.
    pub stream_options: bool,
}

/// How long each part of a call to an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// From sending to the first event of a stream, or the head of a whole answer.
    pub first_byte: Duration,
    /// Between two bytes after that.
    pub idle: Duration,
}

/// What speaks at an upstream, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Any server that speaks OpenAI's API.
    Openai(Url),
    /// vLLM.
    Vllm(Url),
    /// SGLang.
    Sglang(Url),
    /// llama.cpp's server.
    Llamacpp(Url),
    /// Ollama.
    Ollama(Url),
    /// The engine that ships with us; its address is found at run time.
    Embedded,
}

const NAME: Setting = Setting {
    path: "name",
    kind: Kind::Text,
    preset: Preset::Required { example: "\"gpu-1\"" },
    doc: "Unique name; models refer to it. \"engine\" is the embedded engine, which needs no entry.",
};
const KIND: Setting = Setting {
    path: "kind",
    kind: Kind::Text,
    preset: Preset::Required { example: "\"vllm\"" },
    doc: "openai (any compatible server), vllm, sglang, llamacpp, ollama or embedded.",
};
const BASE_URL: Setting = Setting {
    path: "base_url",
    kind: Kind::Url(&["http", "https", "unix"]),
    preset: Preset::Absent { example: "\"http://10.0.0.5:8000/v1\"" },
    doc: "Its address, up to and with /v1, or unix:/PATH of a socket; every kind but embedded needs it.",
};
const API_KEY: Setting = Setting {
    path: "api_key",
    kind: Kind::Secret,
    preset: Preset::Absent { example: "\"sk-…\"" },
    doc: "Sent as bearer token.",
};
const SLOTS: Setting = Setting {
    path: "slots",
    kind: Kind::Integer { min: 1, max: 100_000 },
    preset: Preset::Absent { example: "64" },
    doc: "Requests that it runs at once. Left out: learned.",
};

const CONNECT_TIMEOUT_SECONDS: Setting = Setting {
    path: "connect_timeout_seconds",
    kind: Kind::Integer { min: 1, max: 300 },
    preset: Preset::Integer(5),
    doc: "Until a connection stands.",
};
const FIRST_BYTE_TIMEOUT_SECONDS: Setting = Setting {
    path: "first_byte_timeout_seconds",
    kind: Kind::Integer { min: 1, max: 86_400 },
    preset: Preset::Integer(600),
    doc: "From sending to the first event of a stream, or to the head of an answer that is not streamed.",
};
const IDLE_TIMEOUT_SECONDS: Setting = Setting {
    path: "idle_timeout_seconds",
    kind: Kind::Integer { min: 1, max: 86_400 },
    preset: Preset::Integer(120),
    doc: "Between two bytes after that.",
};
const PRIORITY_ENABLED: Setting = Setting {
    path: "priority_enabled",
    kind: Kind::Flag,
    preset: Preset::Flag(false),
    doc: "Whether it was started with priority scheduling (vLLM: --scheduling-policy priority).",
};

const LIMIT_NAME: Setting = Setting {
    path: "limit_name",
    kind: Kind::OneOf(&LimitName::NAMES),
    preset: Preset::Text("max_tokens"),
    doc: "The name by which chat calls tell it the limit: max_tokens, max_completion_tokens (OpenAI's o-series and GPT-5), or none.",
};
const STREAM_OPTIONS: Setting = Setting {
    path: "stream_options",
    kind: Kind::Flag,
    preset: Preset::Flag(true),
    doc: "Whether it takes stream_options, by which streams are asked for their usage. Without, streams are counted here.",
};

pub(super) const SETTINGS: &[&Setting] = &[
    &NAME,
    &KIND,
    &BASE_URL,
    &API_KEY,
    &SLOTS,
    &CONNECT_TIMEOUT_SECONDS,
    &FIRST_BYTE_TIMEOUT_SECONDS,
    &IDLE_TIMEOUT_SECONDS,
    &PRIORITY_ENABLED,
    &LIMIT_NAME,
    &STREAM_OPTIONS,
];

/// A name is a label of metrics.
const MAX_NAME_BYTES: usize = 64;

/// Kinds that are planned and cannot be served yet.
const LATER_KINDS: &[&str] = &["vllm-omni", "sglang-diffusion", "sdcpp", "comfyui", "cosyvoice"];
const KINDS: &[&str] = &["openai", "vllm", "sglang", "llamacpp", "ollama", "embedded"];

impl Upstream {
    /// The embedded engine, as if it had been written.
    pub(super) fn engine() -> Self {
        let nothing = (Document::default(), Collector::default());
        let scope = Scope::root(&nothing.0, &nothing.1);
        Self::with(&scope, ENGINE_UPSTREAM.to_owned(), UpstreamKind::Embedded)
    }

    /// Where it is; none for the embedded engine.
    pub fn base_url(&self) -> Option<&Url> {
        match &self.kind {
            UpstreamKind::Openai(url)
            | UpstreamKind::Vllm(url)
            | UpstreamKind::Sglang(url)
            | UpstreamKind::Llamacpp(url)
            | UpstreamKind::Ollama(url) => Some(url),
            UpstreamKind::Embedded => None,
        }
    }

    fn read(scope: &Scope<'_>) -> Option<Self> {
        let name = scope.text(&NAME);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !name.bytes().all(is_plain) || name.len() > MAX_NAME_BYTES {
            let message = format!("must have at most {MAX_NAME_BYTES} letters, digits, dots, dashes or underscores");
            scope.fault(&NAME, FaultKind::Value, message);
        }
        let kind = kind(scope);
        if name == ENGINE_UPSTREAM && kind.as_ref().is_some_and(|kind| *kind != UpstreamKind::Embedded) {
            scope.fault(&NAME, FaultKind::Reference, "\"engine\" is kept for the embedded engine; choose another");
        }
        let upstream = Self::with(scope, name, kind.clone().unwrap_or(UpstreamKind::Embedded));
        kind.map(|_| upstream)
    }

    fn with(scope: &Scope<'_>, name: String, kind: UpstreamKind) -> Self {
        let seconds = |setting| Duration::from_secs(scope.integer(setting));
        let api_key = scope.secret(&API_KEY);
        let is_sendable = |key: &SecretString| key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
        if api_key.as_ref().is_some_and(|key| !is_sendable(key)) {
            scope.fault(&API_KEY, FaultKind::Value, "must have printable ASCII characters only");
        }
        Self {
            name,
            kind,
            api_key,
            slots: scope.optional_count(&SLOTS),
            timeouts: Timeouts {
                connect: seconds(&CONNECT_TIMEOUT_SECONDS),
                first_byte: seconds(&FIRST_BYTE_TIMEOUT_SECONDS),
                idle: seconds(&IDLE_TIMEOUT_SECONDS),
            },
            priority_enabled: scope.flag(&PRIORITY_ENABLED),
            limit_name: LimitName::named(&scope.text(&LIMIT_NAME)).unwrap_or_default(),
            stream_options: scope.flag(&STREAM_OPTIONS),
        }
    }
}

pub(super) fn read_all(root: &Scope<'_>) -> Vec<Upstream> {
    let mut names = HashSet::new();
    let mut upstreams = Vec::new();
    for scope in root.entries("upstreams") {
        let name = scope.text(&NAME);
        if !name.is_empty() && !names.insert(name.clone()) {
            scope.fault(&NAME, FaultKind::Reference, format!("\"{name}\" is the name of another upstream"));
        }
        upstreams.extend(Upstream::read(&scope));
    }
    upstreams
}

/// Every name that was written, also of entries that are otherwise wrong: a model that refers to one does not dangle.
pub(super) fn names(root: &Scope<'_>) -> Vec<String> {
    root.entries("upstreams").iter().filter_map(|scope| scope.peek_text(&NAME)).collect()
}

fn base_url(scope: &Scope<'_>) -> Option<Url> {
    let url = scope.optional_url(&BASE_URL)?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() || url.fragment().is_some() {
        scope.fault(&BASE_URL, FaultKind::Value, "must have no user, query or fragment; a key goes into api_key");
        return None;
    }
    Some(url)
}

fn kind(scope: &Scope<'_>) -> Option<UpstreamKind> {
    let kind = scope.text(&KIND);
    let url = base_url(scope);
    if LATER_KINDS.contains(&kind.as_str()) {
        scope.fault(&KIND, FaultKind::Value, format!("\"{kind}\" is not in this version"));
        return None;
    }
    if !KINDS.contains(&kind.as_str()) {
        if !kind.is_empty() {
            scope.fault(&KIND, FaultKind::Value, format!("\"{kind}\" is none of {}", KINDS.join(", ")));
        }
        return None;
    }
    if kind == "embedded" {
        if scope.is_set(&BASE_URL) {
            scope.fault(&BASE_URL, FaultKind::Value, "does not go with kind \"embedded\"");
        }
        return Some(UpstreamKind::Embedded);
    }
    if !scope.is_set(&BASE_URL) {
        let message = format!("is missing; kind \"{kind}\" needs it, for example http://10.0.0.5:8000/v1");
        scope.fault(&BASE_URL, FaultKind::Missing, message);
    }
    let url = url?;
    Some(match kind.as_str() {
        "vllm" => UpstreamKind::Vllm(url),
        "sglang" => UpstreamKind::Sglang(url),
        "llamacpp" => UpstreamKind::Llamacpp(url),
        "ollama" => UpstreamKind::Ollama(url),
        _ => UpstreamKind::Openai(url),
    })
}
