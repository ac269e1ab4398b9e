//! Holds: `[engine]`: the embedded engine.

use std::path::{Path, PathBuf};

use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use sha2::{Digest as _, Sha256};

/// Unix sockets have room for about this many bytes of path.
const MAX_SOCKET_PATH: usize = 100;

/// `[engine]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Whether it is started when a model is served by it.
    pub enabled: bool,
    /// Where it listens.
    pub socket: PathBuf,
    /// The weights it loads, by name; without the setting, those that the models on it name.
    pub models: Vec<String>,
    /// Piper voices that are loaded beside those weights, by name and file.
    pub voices: Vec<(String, PathBuf)>,
    /// Threads that compute; one for each physical core when absent.
    pub threads: Option<u32>,
    /// Requests that are decoded together.
    pub slots: u32,
    /// Tokens of context that the slots share, for each model.
    pub context: u32,
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    pub(crate) const ENABLED: Setting = Setting {
        path: "engine.enabled",
        kind: Kind::Flag,
        preset: Preset::Flag(true),
        doc: "Whether the embedded engine runs, as a child process, for the models whose upstreams name \"engine\".",
    };
    pub(crate) const MODELS: Setting = Setting {
        path: "engine.models",
        kind: Kind::TextList,
        preset: Preset::Follows { example: "[\"smollm2-135m-instruct\", \"all-minilm-l6-v2\"]", other: "[[models]]" },
        doc: "Weights that the engine loads (see `batchin models list`).",
    };
    const VOICES: Setting = Setting {
        path: "engine.voices",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Further Piper voices that the engine loads, each \"NAME=FILE.onnx\", with FILE.onnx.json beside it; a model \
              names one as its id or upstream_model.",
    };
    const THREADS: Setting = Setting {
        path: "engine.threads",
        kind: Kind::Integer { min: 1, max: 1_024 },
        preset: Preset::Absent { example: "4" },
        doc: "Threads that compute. Left out: one for each physical core.",
    };
    const SLOTS: Setting = Setting {
        path: "engine.slots",
        kind: Kind::Integer { min: 1, max: 64 },
        preset: Preset::Integer(16),
        doc: "Requests that are decoded together.",
    };
    const CONTEXT: Setting = Setting {
        path: "engine.context",
        kind: Kind::Integer { min: 256, max: 10_000_000 },
        preset: Preset::Integer(16_384),
        doc: "Tokens of context that the slots share, for each language model.",
    };
}

impl Engine {
    /// No model where the setting is absent.
    pub(super) fn read(scope: &Scope<'_>, data_dir: &Path) -> Self {
        Self {
            enabled: scope.flag(&ENABLED),
            socket: socket(data_dir),
            models: scope.list(&MODELS).into_iter().map(|(name, _)| name).collect(),
            voices: voices(scope),
            threads: scope.optional_count(&THREADS),
            slots: scope.count(&SLOTS),
            context: scope.count(&CONTEXT),
        }
    }
}

/// Names and files of further voices.
fn voices(scope: &Scope<'_>) -> Vec<(String, PathBuf)> {
    let mut voices: Vec<(String, PathBuf)> = Vec::new();
    for (text, place) in scope.list(&VOICES) {
        let parts = text.split_once('=').map(|(name, file)| (name.trim(), file.trim()));
        // The engine's process is told of its models by texts that commas part.
        let is_plain = |(name, file): &(&str, &str)| !name.is_empty() && file.ends_with(".onnx") && !text.contains(',');
        let fault = match parts.filter(is_plain) {
            None => format!("\"{text}\" is not NAME=FILE.onnx, without commas"),
            Some((name, _)) if voices.iter().any(|(known, _)| known == name) => {
                format!("\"{name}\" is the name of two voices")
            }
            Some((name, file)) => {
                voices.push((name.to_owned(), file.into()));
                continue;
            }
        };
        scope.faults.add(&place, FaultKind::Value, fault);
    }
    voices
}

/// In the data folder. Long folders get a short name elsewhere, since socket paths are short.
fn socket(data_dir: &Path) -> PathBuf {
    let folder = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let socket = folder.join("engine.sock");
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return socket;
    }
    let name = hex::encode(&Sha256::digest(socket.as_os_str().as_encoded_bytes())[..8]);
    std::env::temp_dir().join(format!("batchin-{name}.sock"))
}
