//! Holds: `[[models]]`: what is served, by whom, and what it costs.
//!
//! A model without a price for something it can do is a fault: nothing is served for free by accident.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use batchin_domain::price::{Factor, ParsePriceError};
use batchin_domain::{CallKind, Capability, Class, ClassPrices, FilmStyle, Measure, Rate, Tariff};
use batchin_gateway::{Availability, Model, OverLimit, TokenInput};
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, nearest, settings};
use batchin_upstream::{Fim, Kind as Server, Mark, UpstreamConfig, Workflow};

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
        doc: "What it can do: chat, completions, embeddings, rerank, speech, transcription, images, video; responses and \
              messages where its servers have these protocols themselves.",
    };
    const CONTEXT_LENGTH: Setting = Setting {
        path: "context_length",
        kind: Kind::Integer { min: 1, max: 100_000_000 },
        preset: Preset::Absent { example: "131072" },
        doc: "Tokens of prompt and answer together; needed by whatever reads tokens.",
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
    const VOICES: Setting = Setting {
        path: "voices",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Voices of speech, each NAME, or NAME=what its servers call it, as in \"alloy=af_heart\"; the first speaks where none is asked for. Empty: any name goes to the servers as it is.",
    };
    const FALLBACK: Setting = Setting {
        path: "fallback",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"qwen3-8b\"" },
        doc: "The id of the model that answers where none of its upstreams does, at its own price. It must have the same \
              capabilities.",
    };
    const FLEX_CLASS: Setting = Setting {
        path: "flex_class",
        kind: Kind::OneOf(&["low", "fill"]),
        preset: Preset::Text("low"),
        doc: "How requests with service_tier flex are scheduled and priced while their clients wait: as batches of low, or of \
              fill, which only use what is idle.",
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
    const VIDEO_FPS: Setting = Setting {
        path: "video.fps",
        kind: Kind::Integer { min: 1, max: 120 },
        preset: Preset::Integer(24),
        doc: "Frames of a film a second, as the model makes them.",
    };
    const VIDEO_SHORT_EDGE: Setting = Setting {
        path: "video.short_edge",
        kind: Kind::Integer { min: 64, max: 2_160 },
        preset: Preset::Integer(480),
        doc: "Pixels of the shorter side of a film; the longer one follows from the ratio. No larger film is made.",
    };
    const STD_INPUT: Setting = Setting {
        path: "pricing.std_input",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.02" },
        doc: "Dollars per million tokens of prompt, or of text that is embedded or ranked; at most six decimals. What reads tokens needs it.",
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
    const CHARACTERS: Setting = Setting {
        path: "pricing.characters",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "15.0" },
        doc: "Dollars per million characters of text that is spoken; at most six decimals.",
    };
    const AUDIO_SECOND: Setting = Setting {
        path: "pricing.audio_second",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.0001" },
        doc: "Dollars per second of sound, heard or made, by the millisecond; at most twelve decimals.",
    };
    const IMAGE: Setting = Setting {
        path: "pricing.image",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.003" },
        doc: "Dollars per picture of 1024 by 1024; others by their pixels.",
    };
    const VIDEO_SECOND: Setting = Setting {
        path: "pricing.video_second",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.05" },
        doc: "Dollars per second of film that was delivered, by the millisecond.",
    };
    const SEARCH: Setting = Setting {
        path: "pricing.search",
        kind: Kind::Decimal,
        preset: Preset::Absent { example: "0.001" },
        doc: "Dollars per document ranked.",
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

[[models]]
id = "piper-en-us-joe"
upstreams = ["engine"]
capabilities = ["speech"]
license = "CC0-1.0"
owned_by = "rhasspy"
[models.pricing]
characters = 4.0

[[models]]
id = "espeak-ng"
upstreams = ["engine"]
capabilities = ["speech"]
license = "GPL-3.0-or-later"
owned_by = "espeak-ng"
[models.pricing]
characters = 1.0
"#;

/// All models, in the order of the file. `upstreams` are the names that a model may refer to.
pub(super) fn read_all(root: &Scope<'_>, upstreams: &[String], servers: &[UpstreamConfig]) -> Vec<Model> {
    let mut taken = HashMap::new();
    let mut models = Vec::new();
    for scope in root.entries("models") {
        claim_names(&scope, &mut taken);
        check_references(&scope, upstreams);
        check_servers(&scope, servers);
        models.extend(read(&scope));
    }
    root.entries("models").iter().for_each(|scope| check_fallback(scope, &models));
    models
}

fn read(scope: &Scope<'_>) -> Option<Model> {
    let id = scope.text(&ID);
    let capabilities = capabilities(scope);
    let prices = prices(scope, &capabilities);
    let context_length = context_length(scope, &capabilities);
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
        voices: voices(scope),
        token_input: TokenInput::named(&scope.text(&TOKEN_INPUT)).unwrap_or_default(),
        film: FilmStyle { fps: scope.count(&VIDEO_FPS), short_edge: scope.count(&VIDEO_SHORT_EDGE) },
        availability,
        fallback: scope.optional_text(&FALLBACK),
        flex_class: if scope.text(&FLEX_CLASS) == "fill" { Class::Fill } else { Class::Low },
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

/// Names of voices, each with the servers' own.
fn voices(scope: &Scope<'_>) -> Vec<(String, String)> {
    let mut voices: Vec<(String, String)> = Vec::new();
    for (text, place) in scope.list(&VOICES) {
        let (name, own) = text.split_once('=').unwrap_or((&text, &text));
        let (name, own) = (name.trim(), own.trim());
        if name.is_empty() || own.is_empty() {
            scope.faults.add(&place, FaultKind::Value, format!("\"{text}\" is no voice: write NAME, or NAME=NAME"));
        } else if voices.iter().any(|(known, _)| known == name) {
            scope.faults.add(&place, FaultKind::Reference, format!("voice \"{name}\" is named twice"));
        } else {
            voices.push((name.to_owned(), own.to_owned()));
        }
    }
    voices
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

/// A model can do what each of its servers can.
fn check_servers(scope: &Scope<'_>, servers: &[UpstreamConfig]) {
    let capabilities = scope.list(&CAPABILITIES);
    for (name, _) in scope.list(&UPSTREAMS) {
        let written = servers.iter().find(|server| server.name() == name);
        let workflow = written.and_then(|server| server.workflow.as_ref());
        let written = written.map(UpstreamConfig::kind);
        // The name is kept for it.
        let Some(kind) = (name == ENGINE_UPSTREAM).then_some(Server::EMBEDDED).or(written) else { continue };
        for (word, place) in &capabilities {
            let unable = |capability: &Capability| !kind.can.contains(capability);
            if let Some(capability) = Capability::from_name(word).filter(unable) {
                let able: Vec<_> = Server::that_can(capability).map(|kind| kind.name).collect();
                let able = able.join(", ");
                let message = format!(
                    "upstream \"{name}\" is of kind {kind}, which cannot do \"{word}\"; kinds that can: {able}"
                );
                scope.faults.add(place, FaultKind::Value, message);
            }
            let takes_no_length =
                |workflow: &Arc<Workflow>| ![Mark::Frames, Mark::Seconds].into_iter().any(|mark| workflow.takes(mark));
            if word == Capability::Video.name() && workflow.is_some_and(takes_no_length) {
                let message = format!(
                    "the workflow of upstream \"{name}\" has neither {{{{frames}}}} nor {{{{seconds}}}}: every film would have the same length"
                );
                scope.faults.add(place, FaultKind::Value, message);
            }
        }
    }
}

/// A fallback is another model that can do all that this one can, and none leads back to where it began.
fn check_fallback(scope: &Scope<'_>, models: &[Model]) {
    let Some((name, id)) = scope.peek_text(&FALLBACK).zip(scope.peek_text(&ID)) else { return };
    let find = |id: &str| models.iter().find(|model| model.id == id);
    let reference = |message: String| scope.fault(&FALLBACK, FaultKind::Reference, message);
    let Some(fallback) = find(&name) else {
        let ids = models.iter().map(|model| model.id.as_str());
        let advice = nearest(&name, ids).map(|known| format!("; did you mean \"{known}\"?")).unwrap_or_default();
        return reference(format!("\"{name}\" is the id of no model{advice}"));
    };
    // A circle that this model is not in is a fault of those that are.
    let mut next = Some(fallback);
    for _ in models {
        match next {
            Some(model) if model.id == id => return reference(format!("\"{name}\" leads back to \"{id}\"")),
            Some(model) => next = model.fallback.as_deref().and_then(find),
            None => break,
        }
    }
    // A protocol that its servers do not have is told in another one.
    let is_told = |needed: Capability| {
        let speaks = |call: &CallKind| call.native() == Some(needed);
        CallKind::ALL.into_iter().filter(speaks).any(|call| call.asked_of(&fallback.capabilities).is_some())
    };
    let lacks = |needed: &&Capability| !fallback.capabilities.contains(needed) && !is_told(**needed);
    if let Some(missing) = find(&id).and_then(|model| model.capabilities.iter().find(lacks)) {
        reference(format!("\"{name}\" lacks the capability \"{}\"", missing.name()));
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
            let message = format!("capability \"{name}\" is none of {}", known());
            scope.faults.add(place, FaultKind::Value, message);
        }
    }
    if scope.is_set(&CAPABILITIES) && named.is_empty() {
        scope.fault(&CAPABILITIES, FaultKind::Value, format!("must name at least one of {}", known()));
    }
    let is_named = |known: &Capability| named.iter().any(|(name, _)| name == known.name());
    Capability::ALL.into_iter().filter(is_named).collect()
}

/// The names of all capabilities.
fn known() -> String {
    Capability::ALL.map(Capability::name).join(", ")
}

/// A context that no text reaches, of what reads no tokens.
const NO_CONTEXT: u32 = 1;

/// What the prices of are measured, each with its setting; of several in a row any one is a price for it.
type PricedBy = &'static [&'static [Measure]];

/// What a capability must have prices for.
const fn priced_by(capability: Capability) -> PricedBy {
    const TEXT: PricedBy = &[&[Measure::PromptTokens], &[Measure::CompletionTokens]];
    match capability {
        Capability::Chat | Capability::Completions | Capability::Responses | Capability::Messages => TEXT,
        Capability::Embeddings => &[&[Measure::PromptTokens]],
        Capability::Rerank => &[&[Measure::PromptTokens, Measure::Searches]],
        Capability::Speech => &[&[Measure::Characters, Measure::AudioMs]],
        Capability::Transcription => &[&[Measure::AudioMs]],
        Capability::Images => &[&[Measure::Pixels]],
        Capability::Video => &[&[Measure::VideoMs]],
    }
}

/// Whether it reads tokens, of which there is a limit.
const fn reads_tokens(capability: Capability) -> bool {
    match capability {
        Capability::Chat
        | Capability::Completions
        | Capability::Embeddings
        | Capability::Rerank
        | Capability::Responses
        | Capability::Messages => true,
        Capability::Speech | Capability::Transcription | Capability::Images | Capability::Video => false,
    }
}

fn context_length(scope: &Scope<'_>, capabilities: &[Capability]) -> u32 {
    let stated = scope.optional_count(&CONTEXT_LENGTH);
    let reader = capabilities.iter().find(|capability| reads_tokens(**capability));
    if let (false, Some(reader)) = (scope.is_set(&CONTEXT_LENGTH), reader) {
        let message = format!("is missing; {} needs it, such as 131072", reader.name());
        scope.fault(&CONTEXT_LENGTH, FaultKind::Missing, message);
    }
    stated.unwrap_or(NO_CONTEXT)
}

/// How a price is read: of a million, or of one.
type ReadRate = fn(&str) -> Result<Rate, ParsePriceError>;

/// The setting of a measure's price; what is a part of another costs what that does without one, and pictures have theirs
/// by their pixels.
const fn price_setting(measure: Measure) -> Option<(&'static Setting, ReadRate)> {
    Some(match measure {
        Measure::PromptTokens => (&STD_INPUT, Rate::parse_dollars_per_million),
        Measure::CachedTokens => (&CACHED_INPUT, Rate::parse_dollars_per_million),
        Measure::CacheWriteTokens => (&CACHE_WRITE, Rate::parse_dollars_per_million),
        Measure::CompletionTokens => (&STD_OUTPUT, Rate::parse_dollars_per_million),
        Measure::Characters => (&CHARACTERS, Rate::parse_dollars_per_million),
        Measure::AudioMs => (&AUDIO_SECOND, Rate::parse_dollars),
        Measure::Pixels => (&IMAGE, Rate::parse_dollars),
        Measure::VideoMs => (&VIDEO_SECOND, Rate::parse_dollars),
        Measure::Searches => (&SEARCH, Rate::parse_dollars),
        Measure::Images => return None,
    })
}

/// None when a price that the capabilities need is missing or wrong.
fn prices(scope: &Scope<'_>, capabilities: &[Capability]) -> Option<ClassPrices> {
    let [high, low, fill] = [&HIGH, &LOW, &FILL].map(|setting| scope.decimal(setting, factor));
    let mut is_whole = true;
    let read = |tariff: Tariff, measure: Measure| {
        let whole = measure.part_of().map_or(Rate::FREE, |whole| tariff.rate(whole));
        let Some((setting, read)) = price_setting(measure) else { return tariff };
        let rate = scope.decimal(setting, read);
        is_whole &= rate.is_some() || !scope.is_set(setting);
        tariff.with(measure, rate.unwrap_or(whole))
    };
    // A part follows its whole.
    let standard = Measure::ALL.into_iter().fold(Tariff::FREE, read);
    is_whole &= has_its_prices(scope, capabilities);
    let (high, low, fill) = (high?, low?, fill?);
    if !is_whole {
        return None;
    }
    if let Some(unpaid) = capabilities.iter().find(|capability| is_free(**capability, standard)) {
        let setting = setting_of(*unpaid);
        let message = format!("is 0 and nothing else of {} has a price; nothing is served for free", unpaid.name());
        scope.fault(setting, FaultKind::Value, message);
        return None;
    }
    Some(ClassPrices::new(standard, high, low, fill))
}

/// Whether nothing costs anything of what is counted of it. Of tokens either side may be free.
fn is_free(capability: Capability, tariff: Tariff) -> bool {
    let measures = priced_by(capability).iter().copied().flatten();
    let costs = |measure: Measure| tariff.rate(measure) != Rate::FREE;
    let pays_tokens = costs(Measure::PromptTokens) || costs(Measure::CompletionTokens);
    !measures.into_iter().any(|measure| costs(*measure) || (measure.is_of_tokens() && pays_tokens))
}

/// The first setting that gives it a price.
fn setting_of(capability: Capability) -> &'static Setting {
    let first = priced_by(capability).iter().copied().flatten().find_map(|measure| price_setting(*measure));
    first.map_or(&STD_INPUT, |(setting, _)| setting)
}

/// Whether each measure that the capabilities are paid by has a price, be it none.
fn has_its_prices(scope: &Scope<'_>, capabilities: &[Capability]) -> bool {
    let mut told: Vec<&str> = Vec::new();
    for needed in capabilities.iter().flat_map(|capability| priced_by(*capability)) {
        let settings: Vec<&Setting> =
            needed.iter().filter_map(|measure| price_setting(*measure)).map(|(setting, _)| setting).collect();
        let Some(first) = settings.first().filter(|_| !settings.iter().any(|setting| scope.is_set(setting))) else {
            continue;
        };
        if told.contains(&first.path) {
            continue;
        }
        told.push(first.path);
        let of_it = |known: &&Capability| priced_by(**known).contains(needed);
        let named: Vec<_> = capabilities.iter().filter(of_it).map(|known| known.name()).collect();
        let example = if let Preset::Absent { example } = first.preset { example } else { "0.02" };
        let verb = if named.len() == 1 { "needs" } else { "need" };
        let others = settings.get(1..).unwrap_or_default().iter().map(|setting| format!(" (or {})", setting.path));
        let others: String = others.collect();
        let message = format!("is missing; {} {verb} a price, such as {example}{others}", named.join(" and "));
        scope.fault(first, FaultKind::Missing, message);
    }
    told.is_empty()
}

fn factor(text: &str) -> Result<Factor, FactorError> {
    let factor = Factor::parse(text).map_err(|error| match error {
        ParsePriceError::NotADecimal => FactorError::NotADecimal,
        ParsePriceError::TooFine(_) => FactorError::TooFine,
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
        }
    }
}
