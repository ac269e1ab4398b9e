//! Holds: `[[models]]`: what is served, by whom, and what it costs.
//!
//! A model without a price for something it can do is a fault: nothing is served for free by accident.

use std::collections::{HashMap, HashSet};

use batchin_domain::price::{Factor, ParsePriceError};
use batchin_domain::{CallKind, Capability, ClassPrices, Measure, Rate, Tariff};
use batchin_gateway::{Availability, Model, OverLimit, TokenInput};
use batchin_settings::{FaultKind, Kind, Place, Preset, Scope, Setting, nearest, settings};
use batchin_upstream::{Fim, UpstreamConfig};

use super::upstreams::ENGINE_UPSTREAM;

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const ID: Setting = Setting {
        path: "id",
        kind: Kind::Text,
        preset: Preset::Required { example: "\"qwen3-32b\"" },
        doc: "What clients call it.",
    };
    const ALIASES: Setting = Setting {
        path: "aliases",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Other names for it.",
    };
    const UPSTREAMS: Setting = Setting {
        path: "upstreams",
        kind: Kind::TextList,
        preset: Preset::Required { example: "[\"gpu-1\"]" },
        doc: "Names of the upstreams that serve it; several are balanced, with failover. \"engine\" is the embedded engine.",
    };
    const UPSTREAM_MODEL: Setting = Setting {
        path: "upstream_model",
        kind: Kind::Text,
        preset: Preset::Follows { example: "\"Qwen/Qwen3-32B\"", other: "id" },
        doc: "What the upstreams call it, when that is not its id.",
    };
    const CAPABILITIES: Setting = Setting {
        path: "capabilities",
        kind: Kind::TextList,
        preset: Preset::Required { example: "[\"chat\", \"completions\"]" },
        doc: "What it can do: chat, completions, embeddings, rerank.",
    };
    const CONTEXT_LENGTH: Setting = Setting {
        path: "context_length",
        kind: Kind::Integer { min: 1, max: 100_000_000 },
        preset: Preset::Required { example: "131072" },
        doc: "Tokens of prompt and answer together.",
    };
    const MAX_OUTPUT_TOKENS: Setting = Setting {
        path: "max_output_tokens",
        kind: Kind::Integer { min: 1, max: 100_000_000 },
        preset: Preset::Follows { example: "8192", other: "context_length" },
        doc: "Most tokens of an answer; what is set aside before a request without max_tokens.",
    };
    const OVER_LIMIT: Setting = Setting {
        path: "over_limit",
        kind: Kind::OneOf(&["clamp", "refuse"]),
        preset: Preset::Text("clamp"),
        doc: "A request for more than max_output_tokens: clamp gives it as many, refuse answers 400.",
    };
    const FIM: Setting = Setting {
        path: "fim",
        kind: Kind::OneOf(&Fim::NAMES),
        preset: Preset::Absent { example: "\"qwen\"" },
        doc: "How it fills in the middle (suffix): its family, qwen, starcoder, codellama, deepseek, codestral, granite, seed \
              or codegemma; server where its servers are set up for it; none where it cannot. Told by its name without it.",
    };
    const TOKEN_INPUT: Setting = Setting {
        path: "token_input",
        kind: Kind::OneOf(&TokenInput::NAMES),
        preset: Preset::Text("refuse"),
        doc: "Token ids as input of embeddings: refuse answers 400, pass hands them on, cl100k hands on the texts that they mean to OpenAI's models (LangChain).",
    };
    const STATUS: Setting = Setting {
        path: "status",
        kind: Kind::OneOf(&["always_on", "on_demand", "offline"]),
        preset: Preset::Text("always_on"),
        doc: "always_on, on_demand or offline. What clients see also follows the health of the upstreams.",
    };
    const LICENSE: Setting = Setting {
        path: "license",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"apache-2.0\"" },
        doc: "Its licence, shown to clients.",
    };
    const OWNED_BY: Setting = Setting {
        path: "owned_by",
        kind: Kind::Text,
        preset: Preset::Text("batchin"),
        doc: "Who made it, shown to clients.",
    };
    const STD_INPUT: Setting = Setting {
        path: "pricing.std_input",
        kind: Kind::Decimal,
        preset: Preset::Required { example: "0.02" },
        doc: "Dollars per million tokens of prompt, or of text that is embedded or ranked; at most six decimals.",
    };
    const STD_OUTPUT: Setting = Setting {
        path: "pricing.std_output",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.08" },
        doc: "Dollars per million tokens of answer; chat and completions need it.",
    };
    const CACHED_INPUT: Setting = Setting {
        path: "pricing.cached_input",
        kind: Kind::Decimal,
        preset: Preset::Follows { example: "0.005", other: "std_input" },
        doc: "Dollars per million tokens of prompt that the server found in its cache.",
    };
    const CACHE_WRITE: Setting = Setting {
        path: "pricing.cache_write",
        kind: Kind::Decimal,
        preset: Preset::Follows { example: "0.025", other: "std_input" },
        doc: "Dollars per million tokens of prompt that the server says it wrote to its cache.",
    };
    const HIGH: Setting = Setting {
        path: "pricing.batch.high",
        kind: Kind::Decimal,
        preset: Preset::Decimal("1.0"),
        doc: "Factor on the standard price for batches of priority high.",
    };
    const LOW: Setting = Setting {
        path: "pricing.batch.low",
        kind: Kind::Decimal,
        preset: Preset::Decimal("0.5"),
        doc: "The same for low.",
    };
    const FILL: Setting = Setting {
        path: "pricing.batch.fill",
        kind: Kind::Decimal,
        preset: Preset::Decimal("0.25"),
        doc: "The same for fill, which only uses what is idle.",
    };
}

/// The models that are served when none is configured, on the embedded engine; also part of the example.
pub(super) const DEFAULT_MODELS: &str = r#"[[models]]
id = "smollm2-135m-instruct"
upstreams = ["engine"]
capabilities = ["chat", "completions"]
context_length = 8192
max_output_tokens = 2048
license = "apache-2.0"
owned_by = "HuggingFaceTB"
[models.pricing]
std_input = 0.02
std_output = 0.08

[[models]]
id = "all-minilm-l6-v2"
upstreams = ["engine"]
capabilities = ["embeddings"]
context_length = 512
license = "apache-2.0"
owned_by = "sentence-transformers"
[models.pricing]
std_input = 0.01
"#;

/// All models, in the order of the file. `upstreams` are the names that a model may refer to.
pub(super) fn read_all(root: &Scope<'_>, upstreams: &[String]) -> Vec<Model> {
    let mut taken = HashMap::new();
    let mut models = Vec::new();
    for scope in root.entries("models") {
        claim_names(&scope, &mut taken);
        check_references(&scope, upstreams);
        models.extend(read(&scope));
    }
    models
}

fn read(scope: &Scope<'_>) -> Option<Model> {
    let id = scope.text(&ID);
    let capabilities = capabilities(scope);
    let prices = prices(scope, &capabilities);
    let context_length = scope.count(&CONTEXT_LENGTH);
    let max_output_tokens = scope.optional_count(&MAX_OUTPUT_TOKENS);
    if scope.is_set(&CONTEXT_LENGTH) && max_output_tokens.is_some_and(|most| most > context_length) {
        scope.fault(&MAX_OUTPUT_TOKENS, FaultKind::Value, format!("is above context_length ({context_length})"));
    }
    let availability = match scope.text(&STATUS).as_str() {
        "on_demand" => Availability::OnDemand,
        "offline" => Availability::Offline,
        _ => Availability::AlwaysOn,
    };
    let upstream_model = scope.optional_text(&UPSTREAM_MODEL);
    let fim = scope.optional_text(&FIM).and_then(|word| Fim::named(&word));
    Some(Model {
        fim: fim.unwrap_or_else(|| Fim::usual(upstream_model.as_ref().unwrap_or(&id))),
        id,
        aliases: texts(scope, &ALIASES),
        upstreams: texts(scope, &UPSTREAMS),
        upstream_model,
        capabilities,
        context_length,
        max_output_tokens: Some(max_output_tokens.unwrap_or(context_length)),
        over_limit: if scope.text(&OVER_LIMIT) == "refuse" { OverLimit::Refuse } else { OverLimit::Clamp },
        token_input: TokenInput::named(&scope.text(&TOKEN_INPUT)).unwrap_or_default(),
        availability,
        license: scope.optional_text(&LICENSE),
        owned_by: scope.text(&OWNED_BY),
        prices: prices?,
    })
}

/// The weights of the models that the embedded engine serves: by the reserved name, or by an upstream of that kind.
pub(super) fn weights(models: &[Model], upstreams: &[UpstreamConfig]) -> Vec<String> {
    let is_embedded = |name: &String| upstreams.iter().any(|known| known.name() == name && known.kind().is_ours);
    let is_on_engine = |model: &&Model| model.upstreams.iter().any(|name| name == ENGINE_UPSTREAM || is_embedded(name));
    let weights = |model: &Model| model.upstream_name().to_owned();
    models.iter().filter(is_on_engine).map(weights).collect()
}

fn texts(scope: &Scope<'_>, setting: &Setting) -> Vec<String> {
    scope.list(setting).into_iter().map(|(text, _)| text).collect()
}

/// Ids and aliases share one space of names, in which each may be used once.
fn claim_names(scope: &Scope<'_>, taken: &mut HashMap<String, String>) {
    let id = scope.peek_text(&ID).unwrap_or_default();
    let own = scope.peek_text(&ID).map(|id| (id, scope.place(&ID)));
    for (name, place) in own.into_iter().chain(scope.list(&ALIASES)) {
        let is_plain = !name.is_empty() && !name.contains(|symbol: char| symbol.is_whitespace() || symbol.is_control());
        if !is_plain {
            let message = format!("\"{name}\" is no name for a model: it must not be empty nor have blanks");
            scope.faults.add(&place, FaultKind::Value, message);
        } else if let Some(owner) = taken.insert(name.clone(), id.clone()) {
            let message = format!("\"{name}\" already names the model \"{owner}\"");
            scope.faults.add(&place, FaultKind::Reference, message);
        }
    }
}

fn check_references(scope: &Scope<'_>, upstreams: &[String]) {
    let named = scope.list(&UPSTREAMS);
    if scope.is_set(&UPSTREAMS) && named.is_empty() {
        scope.fault(&UPSTREAMS, FaultKind::Value, "must name at least one upstream");
    }
    let mut seen = HashSet::new();
    for (name, place) in &named {
        if !seen.insert(name) {
            scope.faults.add(place, FaultKind::Reference, format!("upstream \"{name}\" is named twice"));
        } else if !upstreams.contains(name) {
            scope.faults.add(place, FaultKind::Reference, dangling(name, upstreams));
        }
    }
}

fn dangling(name: &str, upstreams: &[String]) -> String {
    if name == ENGINE_UPSTREAM {
        return "upstream \"engine\" is switched off; set engine.enabled = true".to_owned();
    }
    match nearest(name, upstreams.iter().map(String::as_str)) {
        Some(known) => format!("there is no upstream \"{name}\"; did you mean \"{known}\"?"),
        None => format!("there is no upstream \"{name}\"; add [[upstreams]] with name = \"{name}\""),
    }
}

/// In the order of [`Capability::ALL`].
fn capabilities(scope: &Scope<'_>) -> Vec<Capability> {
    let named = scope.list(&CAPABILITIES);
    for (name, place) in &named {
        if Capability::from_name(name).is_none() {
            wrong_capability(scope, name, place);
        }
    }
    if scope.is_set(&CAPABILITIES) && named.is_empty() {
        scope.fault(&CAPABILITIES, FaultKind::Value, format!("must name at least one of {}", known()));
    }
    let is_named = |known: &Capability| named.iter().any(|(name, _)| name == known.name());
    Capability::ALL.into_iter().filter(is_named).collect()
}

fn wrong_capability(scope: &Scope<'_>, name: &str, place: &Place) {
    let message = if CallKind::LATER.iter().any(|(later, _)| *later == name) {
        format!("capability \"{name}\" is not in this version")
    } else {
        format!("capability \"{name}\" is none of {}", known())
    };
    scope.faults.add(place, FaultKind::Value, message);
}

/// The names of all capabilities.
fn known() -> String {
    Capability::ALL.map(Capability::name).join(", ")
}

/// Whether tokens are made for it, which have a price.
fn generates(capability: &Capability) -> bool {
    CallKind::ALL.into_iter().any(|call| call.generates() && call.needs() == *capability)
}

/// None when a price that the capabilities need is missing or wrong.
fn prices(scope: &Scope<'_>, capabilities: &[Capability]) -> Option<ClassPrices> {
    let input = scope.decimal(&STD_INPUT, Rate::parse_dollars_per_million);
    let output = scope.decimal(&STD_OUTPUT, Rate::parse_dollars_per_million);
    let cache = [(Measure::CachedTokens, &CACHED_INPUT), (Measure::CacheWriteTokens, &CACHE_WRITE)]
        .map(|(part, setting)| (part, scope.is_set(setting), scope.decimal(setting, Rate::parse_dollars_per_million)));
    let factors = [&HIGH, &LOW, &FILL].map(|setting| scope.decimal(setting, factor));
    if capabilities.iter().any(generates) && !scope.is_set(&STD_OUTPUT) {
        let priced: Vec<_> =
            Capability::ALL.iter().filter(|known| generates(known)).map(|known| known.name()).collect();
        let message = format!("is missing; {} need a price, such as 0.08", priced.join(" and "));
        scope.fault(&STD_OUTPUT, FaultKind::Missing, message);
        return None;
    }
    let plain = Tariff::of_tokens(input?, output.unwrap_or(Rate::FREE));
    let [high, low, fill] = factors;
    let (high, low, fill) = (high?, low?, fill?);
    if plain == Tariff::FREE {
        scope.fault(&STD_INPUT, FaultKind::Value, "is 0 and nothing else has a price; nothing is served for free");
        return None;
    }
    let standard = cache.into_iter().try_fold(plain, |tariff, (part, is_set, rate)| match rate {
        Some(rate) => Some(tariff.with(part, rate)),
        None => (!is_set).then_some(tariff),
    })?;
    Some(ClassPrices::new(standard, high, low, fill))
}

fn factor(text: &str) -> Result<Factor, FactorError> {
    let factor = Factor::parse(text).map_err(|error| match error {
        ParsePriceError::NotADecimal => FactorError::NotADecimal,
        ParsePriceError::TooFine => FactorError::TooFine,
        ParsePriceError::TooLarge => FactorError::TooLarge,
    })?;
    if Factor::parse("0") == Ok(factor) { Err(FactorError::Zero) } else { Ok(factor) }
}

#[derive(Debug, thiserror::Error)]
enum FactorError {
    #[error("must be a factor on the standard price, a decimal number above 0, such as 0.5")]
    NotADecimal,
    #[error("must have at most 6 decimals")]
    TooFine,
    #[error("is too large for a factor on the standard price")]
    TooLarge,
    #[error("must be above 0; nothing is served for free")]
    Zero,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_and_the_documentation_name_every_family() {
        let documentation = include_str!("../../../docs/models.md");
        for word in Fim::NAMES {
            assert!(FIM.doc.contains(word), "{word}");
            assert!(documentation.contains(&format!("| `{word}` |")), "docs/models.md has no row for {word}");
        }
    }

    #[test]
    fn the_settings_name_every_capability() {
        for capability in Capability::ALL {
            assert!(CAPABILITIES.doc.contains(capability.name()), "{capability:?}");
            assert!(!generates(&capability) || STD_OUTPUT.doc.contains(capability.name()), "{capability:?}");
        }
    }
}
