//! Holds: the models that the server of a test offers.

use batchin_domain::{Capability, Class, ClassPrices, Measure, Rate, Tariff, price::Factor};
use batchin_gateway::{Availability, Model, OverLimit, TokenInput};
use batchin_upstream::Fim;

/// What `chat-model`'s tokens cost that are found in a cache and written to one, in dollars per million.
pub(crate) type CachePrices = [&'static str; 2];

/// `chat-model` with the alias `gpt-x`, `embed-model`, `org/offline-model`, which nobody serves, `embed-ids-model`, which
/// takes token ids for OpenAI's, `rank-model`, `voice-model`, whose characters have a price, `timed-voice-model`, whose
/// seconds have one, and `hear-model`, a second of which costs a hundredth of a cent.
pub(crate) fn models(upstreams: &[&str], cache: Option<CachePrices>, fim: Fim) -> Vec<Model> {
    let rate = |text| Rate::parse_dollars_per_million(text).unwrap();
    let factor = |text| Factor::parse(text).unwrap();
    let of_tokens = |input, output| Tariff::of_tokens(rate(input), rate(output));
    let in_classes = |standard| ClassPrices::new(standard, factor("1"), factor("0.5"), factor("0.25"));
    let prices = |input, output| in_classes(of_tokens(input, output));
    let with_cache = |tariff: Tariff, [cached, written]: CachePrices| {
        tariff.with(Measure::CachedTokens, rate(cached)).with(Measure::CacheWriteTokens, rate(written))
    };
    let chat = of_tokens("0.02", "0.08");
    let chat = cache.map_or(chat, |cache| with_cache(chat, cache));
    let model = |id: &str, capabilities: &[Capability]| Model {
        id: id.to_owned(),
        aliases: Vec::new(),
        upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
        upstream_model: None,
        capabilities: capabilities.to_vec(),
        context_length: 8_192,
        max_output_tokens: Some(2_048),
        over_limit: OverLimit::Clamp,
        fim,
        token_input: TokenInput::Refuse,
        voices: Vec::new(),
        film: batchin_domain::FilmStyle::default(),
        availability: Availability::AlwaysOn,
        license: Some("apache-2.0".to_owned()),
        owned_by: "batchin".to_owned(),
        fallback: None,
        flex_class: Class::Low,
        prices: prices("0.02", "0.08"),
    };
    vec![
        Model {
            prices: in_classes(chat),
            aliases: vec!["gpt-x".to_owned()],
            ..model("chat-model", &[Capability::Chat, Capability::Completions])
        },
        Model { prices: prices("0.01", "0"), ..model("embed-model", &[Capability::Embeddings]) },
        Model { availability: Availability::Offline, ..model("org/offline-model", &[Capability::Chat]) },
        Model {
            prices: prices("0.01", "0"),
            token_input: TokenInput::Cl100k,
            ..model("embed-ids-model", &[Capability::Embeddings])
        },
        Model { prices: prices("0.03", "0"), ..model("rank-model", &[Capability::Rerank]) },
        Model {
            prices: in_classes(Tariff::FREE.with(Measure::Characters, rate("15"))),
            voices: vec![("alloy".to_owned(), "af_heart".to_owned()), ("nova".to_owned(), "nova".to_owned())],
            ..model("voice-model", &[Capability::Speech])
        },
        Model {
            prices: in_classes(Tariff::FREE.with(Measure::AudioMs, Rate::parse_dollars("0.0001").unwrap())),
            ..model("timed-voice-model", &[Capability::Speech])
        },
        Model {
            prices: in_classes(of_tokens("0", "0").with(Measure::AudioMs, Rate::parse_dollars("0.0001").unwrap())),
            ..model("hear-model", &[Capability::Transcription])
        },
    ]
}

/// `film-model`, on servers that make films, at five cents a second.
pub(crate) fn film_model(upstreams: &[&str]) -> Model {
    maker("film-model", Capability::Video, (Measure::VideoMs, "0.05"), upstreams)
}

/// `draw-model`, on servers that make pictures, at three tenths of a cent for one of 1024 by 1024.
pub(crate) fn picture_model(upstreams: &[&str]) -> Model {
    maker("draw-model", Capability::Images, (Measure::Pixels, "0.003"), upstreams)
}

fn maker(id: &str, makes: Capability, (measure, dollars): (Measure, &str), upstreams: &[&str]) -> Model {
    let factor = |text| Factor::parse(text).unwrap();
    let price = Tariff::FREE.with(measure, Rate::parse_dollars(dollars).unwrap());
    Model {
        fallback: None,
        flex_class: Class::Low,
        voices: Vec::new(),
        id: id.to_owned(),
        aliases: Vec::new(),
        upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
        upstream_model: None,
        capabilities: vec![makes],
        context_length: 1,
        max_output_tokens: None,
        over_limit: OverLimit::Clamp,
        fim: Fim::Usual(None),
        token_input: TokenInput::Refuse,
        film: batchin_domain::FilmStyle::default(),
        availability: Availability::AlwaysOn,
        license: None,
        owned_by: "batchin".to_owned(),
        prices: ClassPrices::new(price, factor("1"), factor("0.5"), factor("0.25")),
    }
}
