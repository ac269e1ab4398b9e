//! Holds: what was used and what it cost.

pub(crate) mod by_model;
pub(crate) mod logs;
pub(crate) mod summary;
pub(crate) mod timeseries;

use batchin_domain::{AccountId, Balance, Measure};
use batchin_store::{Totals, UsageFilter};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    cents::Cents,
    error::ApiError,
    made::TotalMade,
    query::{Parameters, invalid},
};

/// Sums over requests.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sums {
    total_requests: u64,
    total_input_tokens: u64,
    total_output_tokens: u64,
    total_cost_cents: Cents,
    /// The part of `total_input_tokens` that was found in a cache.
    total_cached_tokens: u64,
    /// The part of them that was written to one.
    total_cache_write_tokens: u64,
    #[serde(flatten)]
    made: TotalMade,
}

impl From<Totals> for Sums {
    fn from(totals: Totals) -> Self {
        let of = |measure| totals.counts.of(measure);
        Self {
            total_requests: totals.requests,
            total_input_tokens: of(Measure::PromptTokens),
            total_output_tokens: of(Measure::CompletionTokens),
            total_cost_cents: Balance::from_nanos(totals.cost_nanos).into(),
            total_cached_tokens: of(Measure::CachedTokens),
            total_cache_write_tokens: of(Measure::CacheWriteTokens),
            made: totals.counts.into(),
        }
    }
}

/// `from`, `to`, `key_id` and `model`.
fn filter(account: AccountId, parameters: &Parameters<'_>) -> Result<UsageFilter, ApiError> {
    Ok(UsageFilter {
        account,
        from: parameters.time("from")?,
        to: parameters.time("to")?,
        key: parameters.id("key_id")?,
        model: model(parameters)?,
    })
}

/// A model's name. No database stores U+0000, and PostgreSQL does not even look for it.
fn model(parameters: &Parameters<'_>) -> Result<Option<String>, ApiError> {
    match parameters.text("model") {
        Some(name) if name.contains('\0') => Err(invalid("model", "must not contain U+0000")),
        name => Ok(name.map(str::to_owned)),
    }
}
