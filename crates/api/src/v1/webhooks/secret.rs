//! Holds: making and rotating the secret that an account's webhooks are signed with.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_domain::AccountId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::ManagingCaller,
    body,
    error::ApiError,
    idempotent::{Creation, Keep, once},
};

/// The call takes nothing; a client may send an empty object.
const MAX_BODY_BYTES: usize = 1_024;

/// A secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedSecret {
    /// What to check signatures with.
    #[schema(example = "whsec_…")]
    secret: String,
    #[schema(format = DateTime)]
    created_at: String,
}

/// Make or rotate the webhook secret
///
/// The secret is in this answer and nowhere else. The one before signs beside it for 24 hours. URLs that had answered
/// 410 hear of later events again.
#[utoipa::path(post, path = "/v1/webhooks/secret", tag = "Webhooks", responses(
    (status = 200, description = "The secret", body = CreatedSecret),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 409, description = "The request was made before", body = ApiError),
    (status = 503, description = "The server's own key is not the one of its database", body = ApiError)))]
pub(crate) async fn rotate(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let creation = Creation { account: caller.account, route: "/v1/webhooks/secret", body: &body, keep: Keep::Nothing };
    once(&app, &parts.headers, creation, |_| make(app.clone(), caller.account)).await
}

async fn make(app: App, account: AccountId) -> Result<CreatedSecret, ApiError> {
    let rotated = app.webhooks.rotate(account).await?;
    Ok(CreatedSecret { secret: rotated.secret.text(), created_at: rotated.created_at.to_string() })
}
