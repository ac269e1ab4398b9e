//! Holds: sums over time, for plots.

use std::time::Duration;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::Usage;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Sums, filter};
use crate::{
    auth::AccountCaller,
    error::ApiError,
    query::{Parameters, invalid},
};

/// More points than any plot shows: a day of minutes.
const MAX_POINTS: u32 = 1_440;

/// One stretch of time.
#[derive(Serialize, ToSchema)]
pub(crate) struct Point {
    /// When it begins.
    #[schema(format = DateTime)]
    start: String,
    #[serde(flatten)]
    sums: Sums,
}

/// Stretches of time with usage, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    /// `minute`, `hour` or `day`.
    #[schema(example = "hour")]
    interval: &'static str,
    data: Vec<Point>,
}

fn interval(parameters: &Parameters<'_>) -> Result<(&'static str, Duration), ApiError> {
    match parameters.text("interval") {
        Some("minute") => Ok(("minute", Duration::from_secs(60))),
        None | Some("hour") => Ok(("hour", Duration::from_secs(3_600))),
        Some("day") => Ok(("day", Duration::from_secs(86_400))),
        Some(_) => Err(invalid("interval", "must be minute, hour or day")),
    }
}

/// Sums over time
///
/// The newest 1,440 stretches of time, UTC; those without usage are left out.
#[utoipa::path(get, path = "/v1/usage/timeseries", tag = "Usage", params(
    ("interval" = Option<String>, Query, description = "minute, hour (the default) or day"),
    ("from" = Option<String>, Query, format = DateTime, description = "Not before"),
    ("to" = Option<String>, Query, format = DateTime, description = "Before"),
    ("key_id" = Option<Uuid>, Query), ("model" = Option<String>, Query)), responses(
    (status = 200, description = "The sums", body = Series),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn timeseries(
    State(usage): State<Usage>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Series>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["interval", "from", "to", "key_id", "model"])?;
    let (interval, width) = interval(&parameters)?;
    let buckets = usage.usage_series(&filter(caller.account, &parameters)?, width, MAX_POINTS).await?;
    let point = |bucket: batchin_store::Bucket| Point { start: bucket.start.to_string(), sums: bucket.totals.into() };
    Ok(Json(Series { interval, data: buckets.into_iter().map(point).collect() }))
}
