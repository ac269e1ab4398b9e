//! Holds: the models that are served: their names, prices, limits and where they run.
//!
//! A snapshot that is swapped whole on reload; requests under way keep the one that they began with.

use std::{collections::HashMap, sync::Arc};

use batchin_domain::{Capability, Class, ClassPrices, FilmStyle, PriceVersion};
use batchin_openai::Fim;

/// Whether a model is there all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Ready at once.
    AlwaysOn,
    /// Loaded when it is asked for.
    OnDemand,
    /// Configured, and not served now.
    Offline,
}

impl Availability {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlwaysOn => "always_on",
            Self::OnDemand => "on_demand",
            Self::Offline => "offline",
        }
    }
}

/// What becomes of a request that asks for more tokens than the model's `max_output_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// It gets as many as the model gives; its `finish_reason` tells.
    Clamp,
    /// It is refused.
    Refuse,
}

/// What becomes of token ids that come as the input of embeddings. They belong to one vocabulary, and clients that make ids
/// of texts mean OpenAI's, whichever model they ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenInput {
    /// They are refused.
    #[default]
    Refuse,
    /// They go to the model server as they are.
    Pass,
    /// The model server is asked for the texts that they mean in OpenAI's vocabulary cl100k.
    Cl100k,
}

impl TokenInput {
    /// The words in the configuration.
    pub const NAMES: [&'static str; 3] = ["refuse", "pass", "cl100k"];

    /// What a configuration names.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "refuse" => Some(Self::Refuse),
            "pass" => Some(Self::Pass),
            "cl100k" => Some(Self::Cl100k),
            _ => None,
        }
    }
}

/// One model.
#[derive(Clone, Debug)]
pub struct Model {
    /// What clients call it.
    pub id: String,
    /// What they may call it too.
    pub aliases: Vec<String>,
    /// The upstreams that serve it, by name; at least one.
    pub upstreams: Vec<String>,
    /// What the upstreams call it, where that differs.
    pub upstream_model: Option<String>,
    /// What it can be asked for.
    pub capabilities: Vec<Capability>,
    /// Prompt and completion together, in tokens.
    pub context_length: u32,
    /// Most completion tokens of one choice; `None` is the context.
    pub max_output_tokens: Option<u32>,
    /// What becomes of a request that asks for more.
    pub over_limit: OverLimit,
    /// How it is asked to fill in the middle.
    pub fim: Fim,
    /// What becomes of token ids as the input of embeddings.
    pub token_input: TokenInput,
    /// Names of voices, each with the one by which its servers know it; the first speaks where none is named. Empty: any name
    /// goes to the servers as it is.
    pub voices: Vec<(String, String)>,
    /// How it films.
    pub film: FilmStyle,
    /// As configured; what is really served follows from the upstreams' health.
    pub availability: Availability,
    /// An SPDX name or whatever the operator calls it.
    pub license: Option<String>,
    /// Who is said to own it.
    pub owned_by: String,
    /// The id of the model that answers where none of its servers does.
    pub fallback: Option<String>,
    /// The class of requests that ask for the tier `flex`: low, or fill.
    pub flex_class: Class,
    /// What it costs in each class.
    pub prices: ClassPrices,
}

impl Model {
    /// What its upstreams call it.
    pub fn upstream_name(&self) -> &str {
        self.upstream_model.as_deref().unwrap_or(&self.id)
    }
}

/// All models of one version of the price list.
#[derive(Clone, Debug)]
pub struct Catalog {
    version: PriceVersion,
    models: Vec<Arc<Model>>,
    by_name: HashMap<String, Arc<Model>>,
}

/// Why models do not make a catalogue.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Two models answer to the same name.
    #[error("two models answer to `{name}`")]
    Ambiguous {
        /// The name.
        name: String,
    },
}

impl Catalog {
    /// A catalogue whose prices have this version.
    pub fn new(version: PriceVersion, models: Vec<Model>) -> Result<Self, CatalogError> {
        let models: Vec<_> = models.into_iter().map(Arc::new).collect();
        let mut by_name = HashMap::with_capacity(models.len());
        for model in &models {
            for name in std::iter::once(&model.id).chain(&model.aliases) {
                if by_name.insert(name.clone(), Arc::clone(model)).is_some() {
                    return Err(CatalogError::Ambiguous { name: name.clone() });
                }
            }
        }
        Ok(Self { version, models, by_name })
    }

    /// The version of its prices.
    pub const fn version(&self) -> PriceVersion {
        self.version
    }

    /// The model of this id or alias.
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        self.by_name.get(name)
    }

    /// All models, in the order configured.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }
}
