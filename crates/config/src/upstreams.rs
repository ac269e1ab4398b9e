//! Holds: `[[upstreams]]`: the model servers.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use batchin_settings::{Collector, Document, FaultKind, Kind, Preset, Scope, Setting, settings};
use batchin_upstream::{
    ConfigError, Kind as Server, LimitName, MAX_NAME_BYTES, MAX_WORKFLOW_BYTES, UpstreamConfig, Workflow,
    WorkflowError, is_name,
};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::engine::Engine;

/// The name of the upstream that needs no entry: the embedded engine.
pub const ENGINE_UPSTREAM: &str = "engine";

settings! {
    pub(super) const SETTINGS: &[&Setting];

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
        doc: "openai (any compatible server), vllm, sglang, llamacpp, ollama, vllm-omni, sglang-diffusion, sdcpp, comfyui, cosyvoice or embedded.",
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
    const MAX_EMBEDDING_INPUTS: Setting = Setting {
        path: "max_embedding_inputs",
        kind: Kind::Integer { min: 1, max: 2048 },
        preset: Preset::Absent { example: "32" },
        doc: "Inputs of embeddings that it takes in one call; more go to it in several, one after another. Left out: any number.",
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
    const SAMPLE_RATE: Setting = Setting {
        path: "sample_rate",
        kind: Kind::Integer { min: 1_000, max: 384_000 },
        preset: Preset::Integer(24_000),
        doc: "Samples a second of sound that it sends without a head: 22050 for CosyVoice's first version (cosyvoice alone).",
    };
    const WORKFLOW_FILE: Setting = Setting {
        path: "workflow_file",
        kind: Kind::Path,
        preset: Preset::Absent { example: "\"/etc/batchin/flux.json\"" },
        doc: "The workflow that it runs, as ComfyUI exports it for its API, with marks such as {{prompt}} (comfyui alone, which needs it).",
    };
    const OUTPUT_NODE: Setting = Setting {
        path: "output_node",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"9\"" },
        doc: "The node of the workflow that saves what was made (comfyui alone, which needs it).",
    };
    const STREAM_OPTIONS: Setting = Setting {
        path: "stream_options",
        kind: Kind::Flag,
        preset: Preset::Flag(true),
        doc: "Whether it takes stream_options, by which streams are asked for their usage. Without, streams are counted here.",
    };
}

/// All of them, in the order of the file.
pub(super) fn read_all(root: &Scope<'_>, engine: &Engine) -> Vec<UpstreamConfig> {
    let mut names = HashSet::new();
    let mut upstreams = Vec::new();
    for scope in root.entries("upstreams") {
        let name = scope.text(&NAME);
        if !name.is_empty() && !names.insert(name.clone()) {
            scope.fault(&NAME, FaultKind::Reference, format!("\"{name}\" is the name of another upstream"));
        }
        upstreams.extend(read(&scope, &name, engine));
    }
    upstreams
}

/// Every name that was written, also of entries that are otherwise wrong: a model that refers to one does not dangle.
pub(super) fn names(root: &Scope<'_>) -> Vec<String> {
    root.entries("upstreams").iter().filter_map(|scope| scope.peek_text(&NAME)).collect()
}

/// The embedded engine, as if it had been written.
pub(super) fn embedded(engine: &Engine, faults: &Collector) -> Option<UpstreamConfig> {
    let nothing = Document::default();
    build(&Scope::root(&nothing, faults), (ENGINE_UPSTREAM, Some((Server::EMBEDDED, address(engine)))), engine)
}

fn read(scope: &Scope<'_>, name: &str, engine: &Engine) -> Option<UpstreamConfig> {
    if !name.is_empty() && !is_name(name) {
        let message = format!("must have at most {MAX_NAME_BYTES} letters, digits, dots, dashes or underscores");
        scope.fault(&NAME, FaultKind::Value, message);
    }
    let server = server(scope, engine);
    if name == ENGINE_UPSTREAM && server.as_ref().is_some_and(|(kind, _)| !kind.is_ours) {
        scope.fault(&NAME, FaultKind::Reference, "\"engine\" is kept for the embedded engine; choose another");
    }
    build(scope, (name, server), engine)
}

/// Of an entry without a server all else is read, too: its faults are told.
fn build(
    scope: &Scope<'_>,
    (name, server): (&str, Option<(Server, String)>),
    engine: &Engine,
) -> Option<UpstreamConfig> {
    let seconds = |setting| Duration::from_secs(scope.integer(setting));
    let timeouts =
        (seconds(&CONNECT_TIMEOUT_SECONDS), seconds(&FIRST_BYTE_TIMEOUT_SECONDS), seconds(&IDLE_TIMEOUT_SECONDS));
    let (api_key, slots) = (api_key(scope), scope.optional_count(&SLOTS));
    let max_embedding_inputs = scope.optional_count(&MAX_EMBEDDING_INPUTS);
    let (priority_enabled, stream_options) = (scope.flag(&PRIORITY_ENABLED), scope.flag(&STREAM_OPTIONS));
    let limit_name = LimitName::named(&scope.text(&LIMIT_NAME)).unwrap_or_default();
    let (kind, address) = server?;
    let workflow = workflow(scope, kind);
    let mut built = match UpstreamConfig::new(name, kind, &address) {
        Ok(built) => built,
        Err(ConfigError::BaseUrl) => {
            let message = "must be http://HOST[:PORT][/PATH], https://… or unix:/PATH";
            scope.fault(&BASE_URL, FaultKind::Value, message);
            return None;
        }
        // Told already.
        Err(ConfigError::Name | ConfigError::ApiKey | ConfigError::Zero(_) | ConfigError::Workflow) => return None,
    };
    (built.connect_timeout, built.first_byte_timeout, built.idle_timeout) = timeouts;
    built.api_key = api_key;
    built.slots = if kind.is_ours { Some(engine.slots) } else { slots };
    built.max_embedding_inputs = max_embedding_inputs;
    built.sample_rate = scope.count(&SAMPLE_RATE);
    built.priority_enabled = priority_enabled;
    built.limit_name = limit_name;
    built.stream_options = stream_options;
    built.workflow = workflow;
    Some(built)
}

/// What a server runs that does nothing else.
fn workflow(scope: &Scope<'_>, kind: Server) -> Option<Arc<Workflow>> {
    let settings = [&WORKFLOW_FILE, &OUTPUT_NODE];
    if !kind.needs_workflow {
        for setting in settings.into_iter().filter(|setting| scope.is_set(setting)) {
            scope.fault(setting, FaultKind::Value, format!("does not go with kind \"{kind}\""));
        }
        return None;
    }
    for (setting, example) in settings.into_iter().zip(["\"/etc/batchin/flux.json\"", "\"9\""]) {
        if !scope.is_set(setting) {
            let message = format!("is missing; kind \"{kind}\" needs it, for example {example}");
            scope.fault(setting, FaultKind::Missing, message);
        }
    }
    let (path, output) = (scope.readable_file(&WORKFLOW_FILE)?, scope.optional_text(&OUTPUT_NODE)?);
    // That it cannot be opened was told.
    let text = read_workflow(&path)?;
    match Workflow::parse(&text, &output) {
        Ok(workflow) => Some(Arc::new(workflow)),
        Err(cause) => {
            let setting = if matches!(cause, WorkflowError::NoOutput { .. }) { &OUTPUT_NODE } else { &WORKFLOW_FILE };
            scope.fault(setting, FaultKind::Value, format!("{} {cause}", path.display()));
            None
        }
    }
}

/// A file's text, up to where it is too long to be a workflow.
fn read_workflow(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_WORKFLOW_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn api_key(scope: &Scope<'_>) -> Option<SecretString> {
    let key = scope.secret(&API_KEY);
    let is_sendable = |key: &SecretString| key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
    if key.as_ref().is_some_and(|key| !is_sendable(key)) {
        scope.fault(&API_KEY, FaultKind::Value, "must have printable ASCII characters only");
    }
    key
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

/// What speaks there, and its address.
fn server(scope: &Scope<'_>, engine: &Engine) -> Option<(Server, String)> {
    let name = scope.text(&KIND);
    let url = base_url(scope);
    let Some(kind) = Server::named(&name) else {
        if !name.is_empty() {
            scope.fault(&KIND, FaultKind::Value, format!("\"{name}\" is none of {}", Server::names()));
        }
        return None;
    };
    if kind.is_ours {
        if scope.is_set(&BASE_URL) {
            scope.fault(&BASE_URL, FaultKind::Value, format!("does not go with kind \"{name}\""));
        }
        return Some((kind, address(engine)));
    }
    if !scope.is_set(&BASE_URL) {
        let message = format!("is missing; kind \"{name}\" needs it, for example http://10.0.0.5:8000/v1");
        scope.fault(&BASE_URL, FaultKind::Missing, message);
    }
    Some((kind, url?.into()))
}

fn address(engine: &Engine) -> String {
    format!("unix:{}", engine.socket.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_and_the_documentation_name_every_kind() {
        let documentation = include_str!("../../../docs/models.md");
        for kind in Server::ALL {
            assert!(KIND.doc.contains(kind.name), "{kind}");
            assert!(documentation.contains(&format!("| `{kind}` |")), "docs/models.md has no row for {kind}");
        }
    }
}
