//! Holds: paying by card.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_domain::Amount;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once},
};

const MAX_BODY_BYTES: usize = 4_096;

/// A payment to be made; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateCheckout;

/// Where it is paid.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenedCheckout {
    /// Stripe's page.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_…")]
    checkout_url: String,
    #[schema(example = "cs_…")]
    session_id: String,
}

/// Buy credit by card
///
/// The page is Stripe's. Credit comes once Stripe says that it is paid, mostly within seconds; coming back from the page
/// credits nothing. `GET /v1/topup/history` shows how it stands.
#[utoipa::path(post, path = "/v1/topup/stripe/checkout", tag = "Money in", request_body = CreateCheckout, responses(
    (status = 200, description = "Where to pay", body = OpenedCheckout),
    (status = 400, description = "The amount is none, or not one that is taken here", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 409, description = "The account has too many payments open, or the Idempotency-Key was used for something else",
        body = ApiError),
    (status = 503, description = "No payments by card are set up, or Stripe does not answer", body = ApiError)))]
pub(crate) async fn checkout(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let fields = Fields::parse(&body, &["amount_cents"])?;
    let Some(amount) = fields.optional_cents("amount_cents")?.filter(|amount| !amount.is_zero()) else {
        return Err(ApiError::invalid("amount_cents", "`amount_cents` must be a whole number of US cents above 0."));
    };
    let creation =
        Creation { account: caller.account, route: "/v1/topup/stripe/checkout", body: &body, keep: Keep::Answer };
    once(&app, &parts.headers, creation, |_| open(app.clone(), caller, amount)).await
}

async fn open(app: App, caller: AccountCaller, amount: Amount) -> Result<OpenedCheckout, ApiError> {
    let email = app.accounts.user(caller.account).await?.map(|user| user.email);
    let opened = app.billing.open_checkout(caller.account, email, amount).await?;
    Ok(OpenedCheckout { checkout_url: opened.url, session_id: opened.session })
}
