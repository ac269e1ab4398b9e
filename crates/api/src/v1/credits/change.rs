//! Holds: giving credit, and taking it back.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_domain::{AccountId, Amount, TransferId};
use batchin_store::CreditGrant;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::App,
    auth::AdminCaller,
    body,
    cents::Cents,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once},
};

const MAX_BODY_BYTES: usize = 16 * 1_024;
/// Longest reason and reference, in characters.
const MAX_CHARS: usize = 500;

/// Credit to be given or taken back; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct ChangeCredit;

/// What was booked.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreditChange {
    /// The movement, as the account's history has it.
    id: Uuid,
    account_id: Uuid,
    /// Below 0 where it was taken back.
    amount_cents: Cents,
    reason: String,
    #[schema(required = true)]
    reference: Option<String>,
    /// The movement that it takes back.
    #[schema(required = true)]
    reverses: Option<Uuid>,
    /// What the account has now.
    credit_balance_cents: Cents,
}

struct Wanted {
    account: Option<Uuid>,
    email: Option<String>,
    amount: Amount,
    is_taken: bool,
    reason: String,
    reference: Option<String>,
    reverses: Option<Uuid>,
}

impl Wanted {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let names = ["account_id", "email", "amount_cents", "reason", "reference", "reverses"];
        let fields = Fields::parse(body, &names)?;
        let (account, email) = (id(&fields, "account_id")?, fields.optional_text("email")?);
        if account.is_some() == email.is_some() {
            let message = "Send either `email` or `account_id`, to say whose credit it is.";
            return Err(ApiError::invalid("email", message));
        }
        let (is_taken, amount) = fields.signed_cents("amount_cents")?;
        if amount.is_zero() {
            let message = "`amount_cents` must not be 0: above, it is given; below, it is taken back.";
            return Err(ApiError::invalid("amount_cents", message));
        }
        let reverses = id(&fields, "reverses")?;
        if reverses.is_some() && !is_taken {
            return Err(ApiError::invalid(
                "reverses",
                "`reverses` names what is taken back; `amount_cents` must be below 0.",
            ));
        }
        let reason = short("reason", fields.text("reason")?)?;
        let reference = fields.optional_text("reference")?.map(|text| short("reference", text)).transpose()?;
        Ok(Self { account, email, amount, is_taken, reason, reference, reverses })
    }
}

fn id(fields: &Fields<'_>, name: &'static str) -> Result<Option<Uuid>, ApiError> {
    let wrong = || ApiError::invalid(name, format!("`{name}` must be a UUID."));
    fields.optional_text(name)?.map(|text| Uuid::try_parse(&text).map_err(|_| wrong())).transpose()
}

fn short(name: &'static str, text: String) -> Result<String, ApiError> {
    let length = text.trim().chars().count();
    if (1..=MAX_CHARS).contains(&length) {
        return Ok(text.trim().to_owned());
    }
    Err(ApiError::invalid(name, format!("`{name}` must have 1 to {MAX_CHARS} characters.")))
}

/// Give credit, or take it back
///
/// Only what is neither spent nor set aside can be taken back. Who did it and why stands in `GET /v1/admin/log`.
#[utoipa::path(post, path = "/v1/admin/credits", tag = "Administration", request_body = ChangeCredit, responses(
    (status = 200, description = "What was booked", body = CreditChange),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError),
    (status = 404, description = "There is no such account", body = ApiError),
    (status = 409, description = "The reference belongs to another movement, or the account has less than that", body = ApiError)))]
pub(crate) async fn change(
    State(app): State<App>,
    caller: AdminCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let wanted = Wanted::parse(&body)?;
    let creation = Creation { account: caller.account, route: "/v1/admin/credits", body: &body, keep: Keep::Answer };
    once(&app, &parts.headers, creation, |_| book(app.clone(), caller, wanted)).await
}

async fn book(app: App, caller: AdminCaller, wanted: Wanted) -> Result<CreditChange, ApiError> {
    let admin = app.accounts.user(caller.account).await?.ok_or_else(|| ApiError::not_found("account"))?;
    let user = match (&wanted.email, wanted.account) {
        (Some(email), _) => app.accounts.user_by_email(&email.trim().to_lowercase()).await?,
        (None, Some(account)) => app.accounts.user(AccountId::new(account)).await?,
        (None, None) => None,
    };
    let user = user.ok_or_else(|| ApiError::not_found("account"))?;
    let grant = CreditGrant {
        id: TransferId::new(app.ids.uuid()),
        account: user.id,
        amount: wanted.amount,
        actor: admin.email,
        reason: wanted.reason.clone(),
        reference: wanted.reference.clone(),
        reverses: wanted.reverses.map(TransferId::new),
        now: app.now(),
    };
    let amount = wanted.amount.nanos();
    let (id, amount) = if wanted.is_taken {
        (app.credit.correct_credit(grant).await?, amount.saturating_neg())
    } else {
        (app.credit.grant_credit(grant).await?, amount)
    };
    let balance = app.balances.standing(user.id).await?.balance;
    Ok(CreditChange {
        id: id.uuid(),
        account_id: user.id.uuid(),
        amount_cents: batchin_domain::Balance::from_nanos(amount).into(),
        reason: wanted.reason,
        reference: wanted.reference,
        reverses: wanted.reverses,
        credit_balance_cents: balance.into(),
    })
}
