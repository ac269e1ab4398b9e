//! Holds: requests one by one.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_domain::{CallKind, Class, Measure};
use batchin_store::{Usage, UsageRow};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter;
use crate::{
    auth::AccountCaller,
    cents::Cents,
    error::ApiError,
    made::Made,
    page::{after, no_row, page},
    query::Parameters,
};

/// A request.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsageLog {
    id: Uuid,
    model: String,
    input_tokens: u64,
    output_tokens: u64,
    cost_cents: Cents,
    /// When it came in.
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required = true, example = "/v1/chat/completions")]
    endpoint: Option<&'static str>,
    /// `interactive`, or the batch's priority.
    #[schema(required = true, example = "interactive")]
    class: Option<&'static str>,
    #[schema(required = true)]
    key_id: Option<Uuid>,
    #[schema(required = true)]
    batch_id: Option<Uuid>,
    /// From admission to the end.
    latency_ms: f64,
    /// Time to first token of a stream.
    #[schema(required = true)]
    ttft_ms: Option<f64>,
    /// The part of `input_tokens` that the model server found in its cache.
    cached_tokens: u64,
    /// The part of them that it wrote to its cache, where it says so.
    cache_write_tokens: u64,
    #[serde(flatten)]
    made: Made,
    /// `running`, `completed`, `client_gone` or `upstream_failed`.
    #[schema(example = "completed")]
    status: &'static str,
    /// Whether the tokens were counted here because the model server did not say.
    estimated: bool,
    /// What is odd about the counts: `capped` at what was held for, `below_pieces` of the model server's own stream,
    /// `cut` off beyond the limit.
    marks: Vec<&'static str>,
}

impl From<UsageRow> for UsageLog {
    fn from(row: UsageRow) -> Self {
        let class = usize::try_from(row.class).ok().and_then(|index| Class::ALL.get(index).copied());
        Self {
            id: row.request.uuid(),
            model: row.model,
            input_tokens: row.counts.of(Measure::PromptTokens),
            output_tokens: row.counts.of(Measure::CompletionTokens),
            cost_cents: row.cost.into(),
            created_at: row.created_at.to_string(),
            endpoint: row.call.map(CallKind::path),
            class: class.map(Class::name),
            key_id: row.key.map(|key| key.uuid()),
            batch_id: row.batch.map(|batch| batch.uuid()),
            latency_ms: row.latency.as_secs_f64() * 1_000.0,
            ttft_ms: row.ttft.map(|ttft| ttft.as_secs_f64() * 1_000.0),
            cached_tokens: row.counts.of(Measure::CachedTokens),
            cache_write_tokens: row.counts.of(Measure::CacheWriteTokens),
            made: row.counts.into(),
            status: row.outcome.name(),
            estimated: row.estimated,
            marks: row.marks.names(),
        }
    }
}

/// Requests one by one, newest first
#[utoipa::path(get, path = "/v1/usage/logs", tag = "Usage", params(
    ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "50 without it"),
    ("after" = Option<Uuid>, Query,
        description = "The `id` of the last row seen: the rows that follow it, whatever has come in since"),
    ("offset" = Option<u32>, Query, description = "How many rows to pass over; not together with `after`"),
    ("from" = Option<String>, Query, format = DateTime, description = "Not before"),
    ("to" = Option<String>, Query, format = DateTime, description = "Before"),
    ("key_id" = Option<Uuid>, Query), ("model" = Option<String>, Query)), responses(
    (status = 200, description = "The requests", body = Vec<UsageLog>),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "`after` names nothing in the list", body = ApiError)))]
pub(crate) async fn logs(
    State(usage): State<Usage>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<UsageLog>>, ApiError> {
    let known = ["limit", "offset", "after", "from", "to", "key_id", "model"];
    let parameters = Parameters::parse(query.as_deref(), &known)?;
    let (filter, page) = (filter(caller.account, &parameters)?, page(&parameters)?);
    let rows = match after(&parameters)? {
        Some(after) => usage.usage_logs_after(&filter, after, page.limit).await?.ok_or_else(no_row)?,
        None => usage.usage_logs(&filter, page).await?,
    };
    Ok(Json(rows.into_iter().map(UsageLog::from).collect()))
}
