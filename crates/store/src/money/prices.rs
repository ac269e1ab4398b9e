//! Holds: versions of the price list. The version in force when a hold is opened is the one that is charged.

use std::collections::HashMap;

use batchin_db::{Rerun, retried};
use batchin_domain::{Class, ClassPrices, Measure, PriceVersion, Rate, Tariff, Timestamp};
use serde_json::{Value, json};

use crate::{Prices, StoreError};

/// A price list as it was published.
#[derive(Clone, Debug)]
pub struct PriceListRow {
    /// Its version.
    pub version: PriceVersion,
    /// The list itself, as JSON.
    pub body: String,
    /// When.
    pub created_at: Timestamp,
}

/// Prices of models in every class, as a price list's body holds them.
#[derive(Clone, Debug, Default)]
pub struct PriceList(HashMap<String, [Tariff; Class::ALL.len()]>);

/// The member that says what one of a measure costs: pico-dollars, as text. A part's is left out where it is that of its
/// whole, and that of what is no token where it is free.
const fn member(measure: Measure) -> &'static str {
    match measure {
        Measure::PromptTokens => "input_pico",
        Measure::CachedTokens => "cached_input_pico",
        Measure::CacheWriteTokens => "cache_write_pico",
        Measure::CompletionTokens => "output_pico",
        Measure::Characters => "character_pico",
        Measure::AudioMs => "audio_second_pico",
        Measure::Images => "image_count_pico",
        Measure::Pixels => "image_pico",
        Measure::VideoMs => "video_second_pico",
        Measure::Searches => "search_pico",
    }
}

impl PriceList {
    /// The body of a list with these models, in this order.
    pub fn body<'a>(models: impl IntoIterator<Item = (&'a str, &'a ClassPrices)>) -> String {
        let in_class = |tariff: Tariff| -> Value {
            let has_own = |measure: &Measure| match measure.part_of() {
                Some(whole) => tariff.rate(whole) != tariff.rate(*measure),
                None => measure.is_of_tokens() || tariff.rate(*measure) != Rate::FREE,
            };
            let priced = |measure| (member(measure), tariff.rate(measure).pico().to_string());
            Measure::ALL.into_iter().filter(has_own).map(priced).collect()
        };
        let one = |(model, prices): (&str, &ClassPrices)| {
            json!({
                "model": model,
                "standard": in_class(prices.in_class(Class::Interactive)),
                "high": in_class(prices.in_class(Class::High)),
                "low": in_class(prices.in_class(Class::Low)),
                "fill": in_class(prices.in_class(Class::Fill)),
            })
        };
        Value::from(models.into_iter().map(one).collect::<Vec<_>>()).to_string()
    }

    /// Reads a body back; `None` when it is none.
    pub fn parse(body: &str) -> Option<Self> {
        let Ok(Value::Array(models)) = serde_json::from_str(body) else { return None };
        models
            .iter()
            .map(|model| Some((model["model"].as_str()?.to_owned(), prices_of(model)?)))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// What a model costs in a class.
    pub fn price(&self, model: &str, class: Class) -> Option<Tariff> {
        Some(self.0.get(model)?[class.index()])
    }
}

fn prices_of(model: &Value) -> Option<[Tariff; Class::ALL.len()]> {
    let rate = |text: &Value| Some(Rate::from_pico(text.as_str()?.parse().ok()?));
    let tariff = |name: &str| {
        // A part follows its whole in `Measure::ALL`.
        let priced = |tariff: Tariff, measure: Measure| match (model[name].get(member(measure)), measure.part_of()) {
            (None, Some(whole)) => Some(tariff.with(measure, tariff.rate(whole))),
            (None, None) if !measure.is_of_tokens() => Some(tariff),
            (said, _) => Some(tariff.with(measure, rate(said?)?)),
        };
        Measure::ALL.into_iter().try_fold(Tariff::FREE, priced)
    };
    let mut prices = [Tariff::FREE; Class::ALL.len()];
    for class in Class::ALL {
        let name = if class == Class::Interactive { "standard" } else { class.name() };
        prices[class.index()] = tariff(name)?;
    }
    Some(prices)
}

/// More nodes than this never publish different lists at the same instant.
const PUBLISH_TRIES: usize = 16;

impl Prices {
    /// Publishes a price list; the same list as the newest one keeps its version.
    pub async fn publish_prices(
        &self,
        fingerprint: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<PriceVersion, StoreError> {
        retried(Rerun::Harmless, || async {
            // Nodes that start together meet here; whoever comes second finds the first one's list.
            for _ in 0..PUBLISH_TRIES {
                if let Some(version) = self.try_publish(fingerprint, body, now).await? {
                    return Ok(version);
                }
            }
            Err(StoreError::RowCount { table: "price_list", expected: 1, touched: 0 })
        })
        .await
    }

    /// `None`: another node took the next version meanwhile.
    async fn try_publish(
        &self,
        fingerprint: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<Option<PriceVersion>, StoreError> {
        let tx = self.db.write().await?;
        let newest = tx.one("SELECT version, fingerprint FROM price_list ORDER BY version DESC LIMIT 1", []).await?;
        let newest: Option<(i64, String)> =
            newest.map(|row| Ok::<_, StoreError>((row.get("version")?, row.get("fingerprint")?))).transpose()?;
        if let Some((version, known)) = &newest
            && known == fingerprint
        {
            return Ok(Some(PriceVersion(*version)));
        }
        let version = newest.map_or(1, |(version, _)| version + 1);
        let inserted = tx
            .run(
                "INSERT INTO price_list (version, fingerprint, body, created_at) VALUES ($1,$2,$3,$4) \
                 ON CONFLICT (version) DO NOTHING",
                [version.into(), fingerprint.into(), body.into(), now.micros().into()],
            )
            .await?;
        if inserted == 0 {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(PriceVersion(version)))
    }

    /// What tells a price list from others.
    pub async fn price_fingerprint(&self, version: PriceVersion) -> Result<Option<String>, StoreError> {
        let row = self.db.one("SELECT fingerprint FROM price_list WHERE version = $1", [version.0.into()]).await?;
        row.map(|row| row.get("fingerprint")).transpose()
    }

    /// A price list by its version.
    pub async fn price_list(&self, version: PriceVersion) -> Result<Option<PriceListRow>, StoreError> {
        let row = self.db.one("SELECT body, created_at FROM price_list WHERE version = $1", [version.0.into()]).await?;
        row.map(|row| {
            Ok(PriceListRow {
                version,
                body: row.get("body")?,
                created_at: Timestamp::from_micros(row.get("created_at")?),
            })
        })
        .transpose()
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::price::Factor;

    use super::*;

    fn body(standard: Tariff) -> String {
        let prices = ClassPrices::new(standard, Factor::ONE, Factor::ONE, Factor::parse("0.5").unwrap());
        PriceList::body([("m", &prices)])
    }

    #[test]
    fn a_list_is_read_back_as_it_was_written() {
        let plain = Tariff::of_tokens(Rate::from_pico(20_000), Rate::from_pico(80_000));
        let cached = plain.with(Measure::CachedTokens, Rate::from_pico(5_001));
        let speaking = Tariff::FREE.with(Measure::Characters, Rate::from_pico(15_000_000));
        for tariff in [plain, speaking, cached, cached.with(Measure::CacheWriteTokens, Rate::FREE), Tariff::FREE] {
            let list = PriceList::parse(&body(tariff)).unwrap();
            assert_eq!(list.price("m", Class::Interactive), Some(tariff));
            let half = |measure| tariff.rate(measure).pico().div_ceil(2);
            let fill = list.price("m", Class::Fill).unwrap();
            assert!(Measure::ALL.into_iter().all(|measure| fill.rate(measure).pico() == half(measure)));
        }
    }

    /// So that its fingerprint, and with it its version, is what it was before parts could have a price.
    #[test]
    fn parts_without_a_price_of_their_own_are_in_no_list() {
        let tariff = Tariff::of_tokens(Rate::from_pico(20_000), Rate::from_pico(80_000));
        let standard = r#""standard":{"input_pico":"20000","output_pico":"80000"}"#;
        assert!(body(tariff).contains(standard), "{}", body(tariff));
        let cached = body(tariff.with(Measure::CachedTokens, Rate::FREE));
        assert!(cached.contains(r#""cached_input_pico":"0""#) && !cached.contains("cache_write"), "{cached}");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_none() {
        let good =
            body(Tariff::of_tokens(Rate::from_pico(1), Rate::from_pico(2)).with(Measure::CachedTokens, Rate::FREE));
        assert!(PriceList::parse(&good).is_some());
        for bad in [good.replace("input_pico", "x"), good.replace(r#"input_pico":"0""#, r#"input_pico":"-1""#)] {
            assert!(PriceList::parse(&bad).is_none(), "{bad}");
        }
    }
}
