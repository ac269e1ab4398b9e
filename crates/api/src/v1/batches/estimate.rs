//! Holds: what a batch would cost.

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_batch::Estimate;
use batchin_domain::{Amount, FileId, Priority};
use serde::Serialize;
use utoipa::ToSchema;

use super::create::CreateBatch;
use crate::{
    app::App,
    auth::AccountCaller,
    body,
    cents::Cents,
    error::ApiError,
    fields::{Fields, invalid},
};

/// What a batch would cost at today's prices.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchEstimate {
    total_tasks: u64,
    /// Prompt tokens, roughly: one for four bytes.
    input_tokens: u64,
    /// The most that it can cost, which is what its tasks hold as they run.
    max_cost_cents: Cents,
    /// What it will cost, roughly: answers of 256 tokens, or as long as the bodies allow.
    expected_cost_cents: Cents,
    by_model: Vec<ModelEstimate>,
}

/// A model's part.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelEstimate {
    model: String,
    tasks: u64,
    input_tokens: u64,
    max_cost_cents: Cents,
    expected_cost_cents: Cents,
}

/// What a batch would cost
///
/// Takes the body of a batch, or `input_file_id` of an uploaded file and `priority`. Nothing is stored and nothing runs;
/// faults are reported as when the batch is made.
#[utoipa::path(post, path = "/v1/batches/estimate", tag = "Batches", request_body = CreateBatch, responses(
    (status = 200, description = "The estimate", body = BatchEstimate),
    (status = 400, description = "The batch is at fault", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError),
    (status = 413, description = "The body is over 2,000,000 bytes", body = ApiError)))]
pub(crate) async fn estimate(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Json<BatchEstimate>, ApiError> {
    let (_, body) =
        body::received(&app.bodies.of(caller.account), request, app.settings.max_inline_batch_bytes).await?;
    let estimate = match of_file(&body) {
        Some(fields) => {
            let fields = fields?;
            let file: FileId = fields.text("input_file_id")?.parse().map_err(|_| ApiError::not_found("file"))?;
            let priority = fields.optional_text("priority")?;
            let priority = priority.as_deref().map_or(Ok(Priority::Low), str::parse);
            let priority = priority.map_err(|()| invalid("priority", "must be high, low or fill"))?;
            app.batches.estimate_file(&caller.caller(), file, priority).await?
        }
        None => app.batches.estimate(body).await?,
    };
    Ok(Json(estimate.into()))
}

/// The members of a body that names a file.
fn of_file(body: &[u8]) -> Option<Result<Fields<'_>, ApiError>> {
    #[derive(serde::Deserialize)]
    struct Named {
        input_file_id: Option<serde::de::IgnoredAny>,
    }
    let named = serde_json::from_slice::<Named>(body).is_ok_and(|named| named.input_file_id.is_some());
    named.then(|| Fields::parse(body, &["input_file_id", "priority"]))
}

impl From<Estimate> for BatchEstimate {
    fn from(all: Estimate) -> Self {
        let cents = |amount: Option<Amount>| Cents::from(amount.unwrap_or(Amount::ZERO));
        let of_model = |(model, part): (String, Estimate)| ModelEstimate {
            model,
            tasks: part.tasks,
            input_tokens: part.input_tokens,
            max_cost_cents: cents(part.max_cost),
            expected_cost_cents: cents(part.expected_cost),
        };
        Self {
            total_tasks: all.tasks,
            input_tokens: all.input_tokens,
            max_cost_cents: cents(all.max_cost),
            expected_cost_cents: cents(all.expected_cost),
            by_model: all.models.into_iter().map(of_model).collect(),
        }
    }
}
