//! Holds: making a key.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_domain::{Amount, KeyId};
use batchin_openai::Code;
use batchin_store::NewKey;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{MAX_BODY_BYTES, RPM, name};
use crate::{
    app::App,
    auth::ManagingCaller,
    body,
    cents::Cents,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once},
    secret::{KEY_PREFIX, Secret},
};

/// Keys of one account; whoever needs more means users of their own.
const MAX_KEYS: usize = 1_000;

/// A key to be made; every field may be left out; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateKey;

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    id: Uuid,
    /// The secret.
    #[schema(example = "batchin_api_…")]
    key: String,
    #[schema(example = "batchin_api")]
    key_prefix: &'static str,
    #[schema(required = true)]
    name: Option<String>,
    rate_limit_rpm: u32,
    #[schema(required = true)]
    monthly_budget_cents: Option<Cents>,
    #[schema(format = DateTime)]
    created_at: String,
}

struct Wanted {
    name: Option<String>,
    rate_limit_rpm: u32,
    monthly_budget: Option<Amount>,
}

impl Wanted {
    fn parse(body: &[u8], default_rpm: u32) -> Result<Self, ApiError> {
        // Everything has a default, so a client may well send nothing.
        let body = if body.is_empty() { b"{}" } else { body };
        let fields = Fields::parse(body, &["name", "rate_limit_rpm", "monthly_budget_cents"])?;
        Ok(Self {
            name: fields.optional_text("name")?.map(|text| name(&text)).transpose()?,
            rate_limit_rpm: fields.optional_count("rate_limit_rpm", RPM)?.unwrap_or(default_rpm),
            monthly_budget: fields.optional_cents("monthly_budget_cents")?,
        })
    }
}

/// Make a key
///
/// The secret is in this answer and nowhere else; with an Idempotency-Key, a repeated request is refused and makes
/// no second key.
#[utoipa::path(post, path = "/v1/keys", tag = "Keys", request_body = CreateKey, responses(
    (status = 200, description = "The key", body = CreatedKey),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 409, description = "The account has too many keys, or the request was made before", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let wanted = Wanted::parse(&body, app.settings.default_rate_limit_rpm)?;
    let creation = Creation { account: caller.account, route: "/v1/keys", body: &body, keep: Keep::Nothing };
    once(&app, &parts.headers, creation, |_| make(app.clone(), caller, wanted)).await
}

async fn make(app: App, caller: ManagingCaller, wanted: Wanted) -> Result<CreatedKey, ApiError> {
    let now = app.now();
    if app.accounts.keys(caller.account, now).await?.len() >= MAX_KEYS {
        let message = format!("An account has at most {MAX_KEYS} keys; delete one first.");
        return Err(ApiError::new(Code::Conflict, message).permanent());
    }
    let secret = Secret::api_key(app.ids.secret());
    let id = KeyId::new(app.ids.uuid());
    let new = NewKey {
        id,
        account: caller.account,
        hash: secret.hash,
        last4: secret.last4(),
        name: wanted.name.clone(),
        rate_limit_rpm: wanted.rate_limit_rpm,
        monthly_budget: wanted.monthly_budget,
        now,
    };
    app.accounts.create_key(new).await?;
    Ok(CreatedKey {
        id: id.uuid(),
        key: secret.text,
        key_prefix: KEY_PREFIX,
        name: wanted.name,
        rate_limit_rpm: wanted.rate_limit_rpm,
        monthly_budget_cents: wanted.monthly_budget.map(Cents::from),
        created_at: now.to_string(),
    })
}
