//! Holds: what the engine is started with. Plain values; the command line is parsed by the server.

use std::{path::PathBuf, str::FromStr};

/// Requests that may wait for a slot of one model before further ones are answered with 503.
///
/// Deep enough for a burst of a batch worker; the scheduler above keeps longer queues durably.
pub const DEFAULT_WAITING_LIMIT: usize = 256;

/// Sequences decoded together. Throughput on CPUs stops growing between 8 and 16.
pub const DEFAULT_SLOTS: usize = 16;

/// Tokens of context shared by all slots of a generative model.
pub const DEFAULT_CONTEXT_TOKENS: u32 = 16_384;

/// Texts that are said at the same time, by all voices together, before further ones are answered with 503.
///
/// Speech is made on threads beside those that generate text; more would only make each of them late.
pub const DEFAULT_SPEECH_LIMIT: usize = 4;

/// A `tracing` filter for the engine's process: llama.cpp logs a page of detail for every model at level info.
pub const DEFAULT_LOG_FILTER: &str = "info,llama-cpp-2=warn,llama_cpp_2=error";

/// Everything that one engine process needs to know.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The unix socket to serve on. A stale file there is replaced; the parent directory must exist.
    pub socket: PathBuf,
    /// The models to load. At least one, with distinct ids.
    pub models: Vec<ModelOptions>,
    /// Compute threads of each model; `None` means one per physical core.
    pub threads: Option<usize>,
    /// Requests that may wait for a slot of one model.
    pub waiting_limit: usize,
    /// Texts that are said at the same time, by all voices together.
    pub speech_limit: usize,
    /// End when standard input closes, which is how a child notices that its parent is gone.
    pub watch_parent: bool,
}

impl EngineOptions {
    /// Options with the default bounds, for a child process that ends with its parent.
    pub fn new(socket: PathBuf, models: Vec<ModelOptions>) -> Self {
        Self {
            socket,
            models,
            threads: None,
            waiting_limit: DEFAULT_WAITING_LIMIT,
            speech_limit: DEFAULT_SPEECH_LIMIT,
            watch_parent: true,
        }
    }
}

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Chat and text completion.
    Generate,
    /// Pooled sentence embeddings.
    Embed,
    /// Speech by a Piper voice.
    Piper,
    /// Speech by the program espeak-ng alone.
    Espeak,
}

impl ModelKind {
    const ALL: [Self; 4] = [Self::Generate, Self::Embed, Self::Piper, Self::Espeak];

    /// The word in the text form.
    const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Piper => "piper",
            Self::Espeak => "espeak",
        }
    }
}

/// One model to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// The id that requests name in `model`.
    pub id: String,
    /// The GGUF file; of a Piper voice, the `.onnx` file, with `.onnx.json` beside it; of espeak-ng, the program, by its
    /// path or by its name among the system's programs.
    pub path: PathBuf,
    /// What it is loaded for.
    pub kind: ModelKind,
    /// Context tokens shared by all slots. Ignored but for generation.
    pub context_tokens: u32,
    /// Sequences decoded together, 1 to 64. Ignored but for generation.
    pub slots: usize,
}

/// Why the text form of a model could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelOptionsError {
    /// No `=` between id and path.
    #[error("write a model as ID=PATH, optionally followed by ,kind=embed,context=TOKENS,slots=N")]
    Form,
    /// A setting with an unknown name.
    #[error("unknown model setting `{setting}`; known are kind, context and slots")]
    UnknownSetting {
        /// The name.
        setting: String,
    },
    /// A setting whose value cannot be used.
    #[error("model setting `{setting}` cannot be `{value}`")]
    BadValue {
        /// The setting's name.
        setting: String,
        /// What was given.
        value: String,
    },
}

/// `ID=PATH[,kind=generate|embed|piper|espeak][,context=TOKENS][,slots=N]`.
impl FromStr for ModelOptions {
    type Err = ModelOptionsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let (id, path) = parts.next().and_then(|first| first.split_once('=')).ok_or(ModelOptionsError::Form)?;
        if id.is_empty() || path.is_empty() {
            return Err(ModelOptionsError::Form);
        }
        let mut model = Self {
            id: id.to_owned(),
            path: PathBuf::from(path),
            kind: ModelKind::Generate,
            context_tokens: DEFAULT_CONTEXT_TOKENS,
            slots: DEFAULT_SLOTS,
        };
        for part in parts {
            let (setting, value) = part.split_once('=').ok_or(ModelOptionsError::Form)?;
            let bad = || ModelOptionsError::BadValue { setting: setting.to_owned(), value: value.to_owned() };
            match setting {
                "kind" => {
                    model.kind = ModelKind::ALL.into_iter().find(|kind| kind.name() == value).ok_or_else(bad)?;
                }
                "context" => model.context_tokens = value.parse().map_err(|_| bad())?,
                "slots" => model.slots = value.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(bad)?,
                _ => return Err(ModelOptionsError::UnknownSetting { setting: setting.to_owned() }),
            }
        }
        Ok(model)
    }
}

/// The text form that [`FromStr`] reads, as handed to the child process.
impl std::fmt::Display for ModelOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, path, kind, context_tokens, slots } = self;
        write!(f, "{id}={},kind={},context={context_tokens},slots={slots}", path.display(), kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_survives_a_round_trip() {
        let model: ModelOptions = "a=/m/a.gguf,kind=embed,context=512,slots=3".parse().unwrap();
        assert_eq!((model.kind, model.context_tokens, model.slots), (ModelKind::Embed, 512, 3));
        for kind in ModelKind::ALL {
            let model = ModelOptions { kind, ..model.clone() };
            assert_eq!(model.to_string().parse::<ModelOptions>().unwrap(), model);
        }
    }

    #[test]
    fn bad_text_names_what_is_wrong() {
        let error = |text: &str| text.parse::<ModelOptions>().unwrap_err();
        assert_eq!(error("a"), ModelOptionsError::Form);
        assert_eq!(error("a=b,colour=red"), ModelOptionsError::UnknownSetting { setting: "colour".to_owned() });
        assert!(matches!(error("a=b,slots=0"), ModelOptionsError::BadValue { .. }));
    }
}
