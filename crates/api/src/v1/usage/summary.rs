//! Holds: sums over all usage.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_openai::Code;

use super::{Sums, filter};
use crate::{app::App, auth::AccountCaller, error::ApiError, query::Parameters};

/// Sums over the account's usage
#[utoipa::path(get, path = "/v1/usage/summary", tag = "Usage", params(
    ("from" = Option<String>, Query, format = DateTime, description = "Not before"),
    ("to" = Option<String>, Query, format = DateTime, description = "Before"),
    ("key_id" = Option<Uuid>, Query), ("model" = Option<String>, Query)), responses(
    (status = 200, description = "The sums", body = Sums),
    (status = 400, description = "A parameter is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 402, description = "The monthly budget of the key that is asked with is used up", body = ApiError)))]
pub(crate) async fn summary(
    State(app): State<App>,
    caller: AccountCaller,
    RawQuery(query): RawQuery,
) -> Result<Json<Sums>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["from", "to", "key_id", "model"])?;
    let filter = filter(caller.account, &parameters)?;
    if let (Some(key), Some(budget)) = (caller.key, caller.monthly_budget)
        && app.accounts.spent_in_month(key, app.now().month()).await? >= budget
    {
        let message = format!("The key's monthly budget of {} cents is used up.", budget.to_cents_text());
        return Err(ApiError::new(Code::PaymentRequired, message).permanent());
    }
    Ok(Json(app.usage.usage_totals(&filter).await?.into()))
}
