//! Holds: the models as clients see them.

pub(crate) mod anthropic;
pub(crate) mod list;
pub(crate) mod openai;
pub(crate) mod show;

use axum::extract::FromRequestParts;
use batchin_domain::{Class, Measure, Rate, Tariff};
use batchin_gateway::{Availability, Model};
use http::{StatusCode, request::Parts};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{AccountCaller, is_key_sent},
    cents::{Dollars, DollarsPerMillion},
    error::ApiError,
};

/// Anybody; but who sends a key is told when it does not work, since clients try theirs with the list of models.
pub(crate) struct Anybody;

impl FromRequestParts<App> for Anybody {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if !is_key_sent(&parts.headers) {
            return Ok(Self);
        }
        match AccountCaller::from_request_parts(parts, app).await {
            Err(error) if error.status() == StatusCode::UNAUTHORIZED => Err(error),
            // What is public stays so while the database is away.
            Ok(_) | Err(_) => Ok(Self),
        }
    }
}

/// A model.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelObject {
    #[schema(example = "smollm2-135m-instruct")]
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// When this server began to serve it, in Unix seconds.
    created: i64,
    /// Always `base`: not tuned for one account. Mistral's packages demand it.
    #[serde(rename = "type")]
    #[schema(example = "base")]
    kind: &'static str,
    owned_by: String,
    /// `always_on`, `on_demand`, or `offline` while no model server of it is known to work: it does not answer its health
    /// check, fails, is loading, or does not have the model. Requests may be tried all the same.
    #[schema(example = "always_on")]
    status: &'static str,
    /// Prompt and completion together, in tokens.
    context_length: u32,
    /// Most completion tokens of one answer.
    max_output_tokens: u32,
    pricing: Pricing,
    /// `chat`, `completions`, `embeddings`.
    capabilities: Vec<&'static str>,
    /// Other names that it answers to.
    aliases: Vec<String>,
    #[schema(required = true)]
    license: Option<String>,
}

/// Prices in US dollars, per one million tokens or characters, or per unit.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pricing {
    std_input: DollarsPerMillion,
    std_output: DollarsPerMillion,
    /// Of prompt tokens that the model server found in its cache, in place of `std_input`.
    cached_input: DollarsPerMillion,
    /// Of those that it wrote to its cache.
    cache_write: DollarsPerMillion,
    #[serde(flatten)]
    made: MadePricing,
    /// Prices in batches.
    batch: BatchPricing,
}

/// Prices by a batch's priority.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchPricing {
    high: InputOutput,
    low: InputOutput,
    fill: InputOutput,
}

/// What a million tokens cost.
#[derive(Serialize, ToSchema)]
pub(crate) struct InputOutput {
    input: DollarsPerMillion,
    output: DollarsPerMillion,
    cached_input: DollarsPerMillion,
    cache_write: DollarsPerMillion,
    #[serde(flatten)]
    made: MadePricing,
}

/// What all but tokens costs, as far as it has a price.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadePricing {
    /// Per million characters spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    characters: Option<DollarsPerMillion>,
    /// Per second of sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_second: Option<Dollars>,
    /// Per picture of 1024 by 1024; others by their pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Dollars>,
    /// Per second of film.
    #[serde(skip_serializing_if = "Option::is_none")]
    video_second: Option<Dollars>,
    /// Per document ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<Dollars>,
}

impl From<Tariff> for MadePricing {
    fn from(tariff: Tariff) -> Self {
        let rate = |measure| Some(tariff.rate(measure)).filter(|rate| *rate != Rate::FREE);
        let price = |measure| rate(measure).map(Dollars::from);
        Self {
            characters: rate(Measure::Characters).map(DollarsPerMillion::from),
            audio_second: price(Measure::AudioMs),
            image: price(Measure::Pixels),
            video_second: price(Measure::VideoMs),
            search: price(Measure::Searches),
        }
    }
}

impl From<Tariff> for InputOutput {
    fn from(tariff: Tariff) -> Self {
        let price = |measure| tariff.rate(measure).into();
        Self {
            input: price(Measure::PromptTokens),
            output: price(Measure::CompletionTokens),
            cached_input: price(Measure::CachedTokens),
            cache_write: price(Measure::CacheWriteTokens),
            made: tariff.into(),
        }
    }
}

fn object(app: &App, model: &Model) -> ModelObject {
    let standard = InputOutput::from(model.prices.standard());
    let in_class = |class| InputOutput::from(model.prices.in_class(class));
    let status = if app.gateway.is_up(model) { model.availability } else { Availability::Offline };
    ModelObject {
        id: model.id.clone(),
        object: "model",
        created: app.started_at.seconds(),
        kind: "base",
        owned_by: model.owned_by.clone(),
        status: status.name(),
        context_length: model.context_length,
        max_output_tokens: model.max_output_tokens.unwrap_or(model.context_length),
        pricing: Pricing {
            std_input: standard.input,
            std_output: standard.output,
            cached_input: standard.cached_input,
            cache_write: standard.cache_write,
            made: standard.made,
            batch: BatchPricing { high: in_class(Class::High), low: in_class(Class::Low), fill: in_class(Class::Fill) },
        },
        capabilities: model.capabilities.iter().map(|capability| capability.name()).collect(),
        aliases: model.aliases.clone(),
        license: model.license.clone(),
    }
}
