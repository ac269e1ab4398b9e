//! Holds: what Stripe reports.

use axum::extract::{Request, State};
use http::{HeaderName, StatusCode};

use crate::{app::App, body, error::ApiError, throttle::client_address};

/// Stripe's largest reports are some dozens of kilobytes.
const MAX_BODY_BYTES: usize = 512 * 1_024;

const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// Take a report of Stripe's
///
/// For Stripe alone: it signs each. What is answered with 200 is stored; anything else Stripe sends again.
#[utoipa::path(post, path = "/v1/webhooks/stripe", tag = "Money in", security(()), responses(
    (status = 200, description = "The report is stored"),
    (status = 400, description = "It is not signed by Stripe, too old, or no event", body = ApiError),
    (status = 413, description = "The body is too large", body = ApiError),
    (status = 503, description = "It cannot be stored now, or no payments by card are set up", body = ApiError)))]
pub(crate) async fn stripe(State(app): State<App>, request: Request) -> Result<StatusCode, ApiError> {
    let (parts, body) = request.into_parts();
    let signature = parts.headers.get(STRIPE_SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let address = client_address(&parts.extensions, &parts.headers, &app.settings.trusted_proxies);
    let body = body::read(&app.bodies.at(address), &parts.headers, body, MAX_BODY_BYTES).await?;
    app.billing.take_report(&body, signature).await?;
    Ok(StatusCode::OK)
}
