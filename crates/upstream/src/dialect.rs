//! Holds: how the kinds of model servers differ.
//!
//! Data only: what is put into a body, how its limit is told, where health is asked. What is left out is the same for all
//! of them and stands in `openai/steering.rs`.

use std::{fmt, str::FromStr};

use batchin_openai::Endpoint;
use serde::Deserialize;

/// The program behind an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Any server with OpenAI's API, hosted ones included.
    OpenAi,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// The engine that ships with us, on a private socket.
    Embedded,
}

/// Which request a server's scheduler takes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PriorityOrder {
    LowerFirst,
    HigherFirst,
    None,
}

impl Kind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Kind; 6] = [Kind::OpenAi, Kind::Vllm, Kind::Sglang, Kind::LlamaCpp, Kind::Ollama, Kind::Embedded];

    /// The word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::OpenAi => "openai",
            Kind::Vllm => "vllm",
            Kind::Sglang => "sglang",
            Kind::LlamaCpp => "llamacpp",
            Kind::Ollama => "ollama",
            Kind::Embedded => "embedded",
        }
    }

    /// Where a cheap answer tells that the server lives; from the server's root.
    pub(crate) const fn health_path(self) -> HealthPath {
        match self {
            Kind::OpenAi => HealthPath::BelowBase("/models"),
            // SGLang's /health generates a token and may take seconds.
            Kind::Sglang => HealthPath::AtRoot("/ready"),
            Kind::Vllm | Kind::LlamaCpp | Kind::Embedded => HealthPath::AtRoot("/health"),
            Kind::Ollama => HealthPath::AtRoot("/"),
        }
    }

    /// What a server answers only to whoever has its key, where that can be asked without any work: llama.cpp shows its
    /// list of models to everybody.
    pub(crate) const fn guarded_path(self) -> HealthPath {
        match self {
            Kind::LlamaCpp => HealthPath::AtRoot("/props"),
            Kind::OpenAi | Kind::Vllm | Kind::Sglang | Kind::Ollama | Kind::Embedded => MODELS_PATH,
        }
    }

    /// Whether a server that lists these models serves this one.
    pub fn has(self, listed: &[String], model: &str) -> bool {
        let is = |name: &String| {
            name == model
                // Ollama's names have a tag, and `latest` goes without saying; Google's list has a folder before the name.
                || (self == Kind::Ollama && name.strip_suffix(":latest") == Some(model))
                || (self == Kind::OpenAi && name.strip_prefix("models/") == Some(model))
        };
        // A llama-server with one model takes any name for it.
        (self == Kind::LlamaCpp && listed.len() == 1) || listed.iter().any(is)
    }

    pub(crate) const fn priority_order(self) -> PriorityOrder {
        match self {
            Kind::Vllm | Kind::Embedded => PriorityOrder::LowerFirst,
            Kind::Sglang => PriorityOrder::HigherFirst,
            Kind::OpenAi | Kind::LlamaCpp | Kind::Ollama => PriorityOrder::None,
        }
    }

    /// The least limit that it is told. To Ollama 0 means none.
    pub(crate) const fn least_limit(self) -> u32 {
        match self {
            Kind::Ollama => 1,
            Kind::OpenAi | Kind::Vllm | Kind::Sglang | Kind::LlamaCpp | Kind::Embedded => 0,
        }
    }

    /// Whether it takes a limit that does not fit behind the prompt, and ends the answer where the context does. The others
    /// refuse it.
    pub(crate) const fn takes_any_limit(self) -> bool {
        matches!(self, Kind::LlamaCpp | Kind::Ollama | Kind::Embedded)
    }

    /// Whether tool calls are the same in a stream and in a whole answer. vLLM, SGLang and what else speaks OpenAI's
    /// protocol read them out of the text by two programs, one for each, which differ on what they take for a call.
    pub const fn streams_tool_calls_alike(self) -> bool {
        match self {
            Kind::LlamaCpp | Kind::Ollama | Kind::Embedded => true,
            Kind::OpenAi | Kind::Vllm | Kind::Sglang => false,
        }
    }

    /// Whether it tells its counts in every chunk when asked to.
    pub const fn counts_all_along(self) -> bool {
        matches!(self, Kind::Vllm | Kind::Embedded)
    }

    /// Whether each piece of its streams is one token.
    pub const fn streams_token_by_token(self) -> bool {
        !matches!(self, Kind::OpenAi)
    }

    /// Whether it puts the prompt before a completion that asks for it by `echo`. The others ignore or refuse it.
    pub const fn echoes(self) -> bool {
        matches!(self, Kind::OpenAi | Kind::Vllm | Kind::Sglang)
    }

    /// Whether it gives one answer, whatever `n` says.
    pub const fn ignores_n(self) -> bool {
        matches!(self, Kind::Ollama)
    }

    /// Whether a call whose connection is closed stops there. A hosted API may go on computing, and charging.
    pub const fn stops_when_left(self) -> bool {
        !matches!(self, Kind::OpenAi)
    }

    /// llama.cpp refuses `suffix` and `best_of` for being there at all, null or not.
    pub(crate) const fn drops_nulls(self) -> bool {
        matches!(self, Kind::LlamaCpp | Kind::Embedded)
    }

    /// Members to add where a body has none.
    pub(crate) const fn defaults(self, endpoint: Endpoint) -> &'static [(&'static str, &'static str)] {
        match (self, endpoint) {
            // With a completion template, only an empty suffix keeps SGLang from writing "None" into the prompt.
            (Kind::Sglang, Endpoint::Completions) => &[("suffix", "\"\"")],
            _ => &[],
        }
    }
}

/// Where health is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthPath {
    AtRoot(&'static str),
    BelowBase(&'static str),
}

/// The list of models, which every kind has.
pub(crate) const MODELS_PATH: HealthPath = HealthPath::BelowBase("/models");

/// The names in a list of models; `None` when it is none.
pub(crate) fn listed(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        // Together AI's list is an array without more.
        Wrapped { data: Vec<Named> },
        Bare(Vec<Named>),
    }
    match serde_json::from_slice(body).ok()? {
        List::Wrapped { data } | List::Bare(data) => Some(data.into_iter().map(|named| named.id).collect()),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No kind has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kind must be one of openai, vllm, sglang, llamacpp, ollama, embedded")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_in_a_server_s_list() {
        let names = |body: &str| listed(body.as_bytes());
        let wrapped = r#"{"object":"list","data":[{"id":"llama3:latest","object":"model"},{"id":"b"}]}"#;
        let list = names(wrapped).unwrap();
        assert_eq!(names(r#"[{"id":"llama3:latest"},{"id":"b"}]"#).as_ref(), Some(&list));
        assert_eq!((names("<html>"), names("{}"), names(r#"{"data":[]}"#)), (None, None, Some(Vec::new())));
        assert!(Kind::Ollama.has(&list, "llama3") && !Kind::Vllm.has(&list, "llama3") && Kind::Vllm.has(&list, "b"));
        assert!(!Kind::LlamaCpp.has(&list, "any") && Kind::LlamaCpp.has(&list[..1], "any"));
    }

    #[test]
    fn names_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert!(UnknownKind.to_string().contains(kind.name()));
        }
        assert_eq!("VLLM".parse::<Kind>(), Err(UnknownKind));
    }
}
