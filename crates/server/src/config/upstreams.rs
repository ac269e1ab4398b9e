//! Holds: `[[upstreams]]`: the model servers.

use std::collections::HashSet;

use secrecy::SecretString;
use url::Url;

use super::fault::FaultKind;
use super::reader::Scope;
use super::setting::{Kind, Preset, Setting};

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
    kind: Kind::Url(&["http", "https"]),
    preset: Preset::Absent { example: "\"http://10.0.0.5:8000/v1\"" },
    doc: "Its address, up to and with /v1; every kind but embedded needs it.",
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

pub(super) const SETTINGS: &[&Setting] = &[&NAME, &KIND, &BASE_URL, &API_KEY, &SLOTS];

/// Kinds that are planned and cannot be served yet.
const LATER_KINDS: &[&str] = &["vllm-omni", "sglang-diffusion", "sdcpp", "comfyui", "cosyvoice"];
const KINDS: &[&str] = &["openai", "vllm", "sglang", "llamacpp", "ollama", "embedded"];

impl Upstream {
    /// The embedded engine, as if it had been written.
    pub(super) fn engine() -> Self {
        Self { name: ENGINE_UPSTREAM.to_owned(), kind: UpstreamKind::Embedded, api_key: None, slots: None }
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
        let kind = kind(scope);
        let api_key = scope.secret(&API_KEY);
        let slots = scope.optional_count(&SLOTS);
        if name == ENGINE_UPSTREAM && kind.as_ref().is_some_and(|kind| *kind != UpstreamKind::Embedded) {
            scope.fault(&NAME, FaultKind::Reference, "\"engine\" is kept for the embedded engine; choose another");
        }
        Some(Self { name, kind: kind?, api_key, slots })
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

fn kind(scope: &Scope<'_>) -> Option<UpstreamKind> {
    let kind = scope.text(&KIND);
    let url = scope.optional_url(&BASE_URL);
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
