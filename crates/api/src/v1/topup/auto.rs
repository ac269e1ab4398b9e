//! Holds: payments that are made by themselves when the balance goes low.

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use batchin_domain::Amount;
use batchin_store::{AutoTopup, AutoWish};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{AccountCaller, ManagingCaller},
    body,
    cents::Cents,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once},
};

const MAX_BODY_BYTES: usize = 4_096;

/// What is to be paid by itself; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct SetAutoTopup;

/// Payments that are made by themselves.
#[derive(Serialize, ToSchema)]
#[schema(as = AutoTopup)]
pub(crate) struct AutoTopupObject {
    enabled: bool,
    /// Paid once the balance is below this.
    #[schema(required = true)]
    threshold_cents: Option<Cents>,
    /// So much at a time.
    #[schema(required = true)]
    amount_cents: Option<Cents>,
    /// At most so much in a calendar month, UTC.
    #[schema(required = true)]
    monthly_ceiling_cents: Option<Cents>,
    /// The card that pays, as far as it may be shown; null until one is saved.
    #[schema(required = true, example = "visa 4242")]
    payment_method: Option<String>,
    /// `off`, `needs_payment_method`, `active`, or `stopped` after a refusal, refund or dispute, until a card is saved or this is set
    /// again.
    #[schema(example = "active")]
    status: &'static str,
    /// Why it is stopped, in a word.
    #[schema(required = true, example = "insufficient_funds")]
    stopped_by: Option<String>,
}

impl From<Option<AutoTopup>> for AutoTopupObject {
    fn from(auto: Option<AutoTopup>) -> Self {
        let wish = auto.as_ref().map(|auto| auto.wish).filter(|wish| !wish.amount.is_zero());
        let enabled = wish.is_some_and(|wish| wish.enabled);
        let status = match &auto {
            Some(auto) if enabled && auto.stopped.is_some() => "stopped",
            Some(auto) if enabled && auto.method.is_some() => "active",
            Some(_) if enabled => "needs_payment_method",
            _ => "off",
        };
        let (shown, stopped_by) = auto.map_or((None, None), |auto| {
            (auto.method.map(|_| auto.shown.unwrap_or_else(|| "saved".to_owned())), auto.stopped)
        });
        Self {
            enabled,
            threshold_cents: wish.map(|wish| wish.threshold.into()),
            amount_cents: wish.map(|wish| wish.amount.into()),
            monthly_ceiling_cents: wish.map(|wish| wish.ceiling.into()),
            payment_method: shown,
            status,
            stopped_by: stopped_by.filter(|_| enabled),
        }
    }
}

/// Where a payment method is saved.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenedSetup {
    /// Stripe's page; nothing is paid there.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_…")]
    setup_url: String,
    #[schema(example = "cs_…")]
    session_id: String,
}

/// Payments that are made by themselves
#[utoipa::path(get, path = "/v1/topup/auto", tag = "Money in", responses(
    (status = 200, description = "How it stands", body = AutoTopupObject),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, caller: AccountCaller) -> Result<Json<AutoTopupObject>, ApiError> {
    Ok(Json(app.billing.auto_topup(caller.account).await?.into()))
}

/// Have credit bought by itself
///
/// Off until it is set. Once the balance is below the threshold the saved card pays the amount, at most the ceiling in a calendar
/// month. A refusal stops it, and `topup.failed` says so.
#[utoipa::path(put, path = "/v1/topup/auto", tag = "Money in", request_body = SetAutoTopup, responses(
    (status = 200, description = "How it stands", body = AutoTopupObject),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 503, description = "No payments by card are set up", body = ApiError)))]
pub(crate) async fn set(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Json<AutoTopupObject>, ApiError> {
    let (_, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let wish = wish(&body)?;
    app.billing.set_auto_topup(caller.account, &wish).await?;
    Ok(Json(app.billing.auto_topup(caller.account).await?.into()))
}

fn wish(body: &[u8]) -> Result<AutoWish, ApiError> {
    let fields = Fields::parse(body, &["enabled", "threshold_cents", "amount_cents", "monthly_ceiling_cents"])?;
    let Some(enabled) = fields.optional_flag("enabled")? else {
        return Err(ApiError::invalid("enabled", "`enabled` is missing; send true or false."));
    };
    let sum = |name: &'static str| -> Result<Amount, ApiError> {
        match fields.optional_cents(name)? {
            Some(amount) if !amount.is_zero() => Ok(amount),
            None if !enabled => Ok(Amount::ZERO),
            Some(_) if !enabled => Ok(Amount::ZERO),
            _ => Err(ApiError::invalid(name, format!("`{name}` must be a number of US cents above 0."))),
        }
    };
    let wish = AutoWish {
        enabled,
        threshold: sum("threshold_cents")?,
        amount: sum("amount_cents")?,
        ceiling: sum("monthly_ceiling_cents")?,
    };
    if enabled && wish.ceiling < wish.amount {
        let message = "`monthly_ceiling_cents` is below `amount_cents`, so that nothing could ever be paid.";
        return Err(ApiError::invalid("monthly_ceiling_cents", message));
    }
    Ok(wish)
}

/// Save a card for it
#[utoipa::path(post, path = "/v1/topup/auto/setup", tag = "Money in", responses(
    (status = 200, description = "Where to save it", body = OpenedSetup),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 503, description = "No payments by card are set up, or Stripe does not answer", body = ApiError)))]
pub(crate) async fn setup(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let creation = Creation { account: caller.account, route: "/v1/topup/auto/setup", body: &body, keep: Keep::Answer };
    let (shared, account) = (app.clone(), caller.account);
    once(&app, &parts.headers, creation, |_| async move {
        let email = shared.accounts.user(account).await?.map(|user| user.email);
        let opened = shared.billing.open_setup(account, email).await?;
        Ok(OpenedSetup { setup_url: opened.url, session_id: opened.session })
    })
    .await
}
