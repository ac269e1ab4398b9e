//! Holds: what an account's owner wants to be told of.

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_openai::Code;
use batchin_store::AlertSettings;
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::{AccountCaller, ManagingCaller},
    body,
    cents::Cents,
    error::ApiError,
    fields::Fields,
};

const MAX_BODY_BYTES: usize = 16 * 1_024;

/// Wishes; `openapi/bodies.rs` has their members.
#[derive(ToSchema)]
pub(crate) struct SetAlerts;

/// A code; `openapi/bodies.rs` has it.
#[derive(ToSchema)]
pub(crate) struct ConfirmEmail;

/// What an account's owner wants to be told of.
#[derive(Serialize, ToSchema)]
pub(crate) struct Alerts {
    /// Where events of money go: `topup.succeeded`, `topup.failed`, `topup.reversed`, `balance.low`, `budget.threshold`; signed
    /// with the account's webhook secret.
    #[schema(required = true, example = "https://example.com/hook")]
    webhook_url: Option<String>,
    /// Whether these events also go to the account's own e-mail address.
    email: bool,
    /// Whether that address is confirmed with the code that was sent there; none of these events goes there before.
    email_confirmed: bool,
    /// `balance.low` is sent once the balance falls below this, and again after it was above.
    #[schema(required = true)]
    balance_low_cents: Option<Cents>,
    /// `budget.threshold` is sent once a key has spent so much of its monthly budget, in percent.
    #[schema(required = true, minimum = 1, maximum = 100)]
    budget_threshold_percent: Option<u8>,
}

impl From<AlertSettings> for Alerts {
    fn from(settings: AlertSettings) -> Self {
        Self {
            webhook_url: settings.url,
            email: settings.email,
            email_confirmed: settings.email_confirmed,
            balance_low_cents: settings.low.map(Cents::from),
            budget_threshold_percent: settings.budget_percent,
        }
    }
}

/// What you are told of
#[utoipa::path(get, path = "/v1/alerts", tag = "Webhooks", responses(
    (status = 200, description = "The wishes", body = Alerts),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, caller: AccountCaller) -> Result<Json<Alerts>, ApiError> {
    Ok(Json(app.alerts.alert_settings(caller.account).await?.into()))
}

/// Say what you want to be told of
///
/// Puts all wishes in place of those before; what is left out is not told. With `email` for the first time, a code is sent to the
/// account's address, at most once a day and five times in all; `POST /v1/alerts/email` takes it.
#[utoipa::path(put, path = "/v1/alerts", tag = "Webhooks", request_body = SetAlerts, responses(
    (status = 200, description = "The wishes", body = Alerts),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 409, description = "E-mail is wanted, and the server sends none", body = ApiError)))]
pub(crate) async fn set(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Json<Alerts>, ApiError> {
    let (_, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let fields = Fields::parse(&body, &["webhook_url", "email", "balance_low_cents", "budget_threshold_percent"])?;
    let url = fields.optional_text("webhook_url")?;
    if let Some(url) = &url {
        let wrong = |why: String| ApiError::invalid("webhook_url", format!("`webhook_url` {why}."));
        app.batches.check_webhook(url).map_err(|fault| wrong(fault.to_string()))?;
    }
    let email = fields.optional_flag("email")?.unwrap_or_default();
    if email && !app.settings.mail {
        let message =
            "`email` cannot be true: this server sends no mail. Give a `webhook_url`, or ask its operator for [smtp].";
        return Err(ApiError::new(Code::Conflict, message).at("email").permanent());
    }
    let percent = fields.optional_count("budget_threshold_percent", 1..=100)?;
    let settings = AlertSettings {
        url,
        email,
        email_confirmed: false,
        low: fields.optional_cents("balance_low_cents")?.filter(|low| !low.is_zero()),
        budget_percent: percent.and_then(|percent| u8::try_from(percent).ok()),
    };
    Ok(Json(app.alerts.set_alerts(caller.account, &settings, app.now()).await?.into()))
}

/// Confirm your e-mail address
///
/// With the code that was sent to the account's address after `email` was set. From then on events of money go there.
#[utoipa::path(post, path = "/v1/alerts/email", tag = "Webhooks", request_body = ConfirmEmail, responses(
    (status = 200, description = "The wishes", body = Alerts),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "It is not the code that was sent to the account's address, or the key has a monthly budget", body = ApiError)))]
pub(crate) async fn confirm(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Json<Alerts>, ApiError> {
    let (_, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let code = Fields::parse(&body, &["code"])?.text("code")?;
    let user = app.accounts.user(caller.account).await?;
    let sent = user.map(|user| app.webhooks.email_code(user.id, &user.email));
    let is_right = sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(code.trim().as_bytes())));
    if !is_right {
        let message = "`code` must be the code of the mail that was sent to this account's address.";
        return Err(ApiError::new(Code::Forbidden, message).at("code").permanent());
    }
    Ok(Json(app.alerts.confirm_email(caller.account).await?.into()))
}
