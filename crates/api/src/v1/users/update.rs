//! Holds: changing one's name or password.

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_openai::Code;
use utoipa::ToSchema;

use super::{MAX_BODY_BYTES, UserObject, contact_fault, password_fault};
use crate::{
    app::App,
    attempts::Origin,
    auth::ManagingCaller,
    body, contact,
    error::ApiError,
    fields::Fields,
    password::{PasswordError, fits},
    throttle::client_address,
};

/// What to change; what is left out stays.
#[derive(ToSchema)]
pub(crate) struct UpdateUser {
    #[schema(max_length = 200)]
    name: Option<String>,
    /// A new one; ends every session.
    #[schema(min_length = 8, max_length = 1024)]
    password: Option<String>,
    /// Required with `password`.
    old_password: Option<String>,
}

impl UpdateUser {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body, &["name", "password", "old_password"])?;
        let name = fields.optional_text("name")?.map(|name| contact::name(&name)).transpose();
        let password = fields.optional_text("password")?;
        let old_password = fields.optional_text("old_password")?;
        if password.as_ref().is_some_and(|password| !fits(password)) {
            return Err(password_fault("password", PasswordError::Length));
        }
        if password.is_some() && old_password.is_none() {
            return Err(ApiError::invalid(
                "old_password",
                "`old_password` is missing; a new password needs the old one.",
            ));
        }
        Ok(Self { name: name.map_err(|fault| contact_fault("name", fault))?, password, old_password })
    }
}

/// Change name or password
#[utoipa::path(patch, path = "/v1/users/me", tag = "Users", request_body = UpdateUser, responses(
    (status = 200, description = "The user", body = UserObject),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key is missing, or the old password is wrong", body = ApiError),
    (status = 403, description = "The key has a monthly budget, and such a key manages nothing", body = ApiError),
    (status = 429, description = "Too many attempts", body = ApiError)))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: ManagingCaller,
    request: Request,
) -> Result<Json<UserObject>, ApiError> {
    let (parts, body) = request.into_parts();
    let address = client_address(&parts.extensions, &parts.headers, &app.settings.trusted_proxies);
    let change =
        UpdateUser::parse(&body::read(&app.bodies.of(caller.account), &parts.headers, body, MAX_BODY_BYTES).await?)?;
    let gone = || ApiError::unauthorized("This account does not exist any more.");
    let mut user = app.accounts.user(caller.account).await?.ok_or_else(gone)?;
    let password_hash = match (change.password, change.old_password) {
        (Some(new), Some(old)) => {
            let attempt = app.attempts.begin(&user.email, Origin { address, vouched: false }).await?;
            let verified = app.passwords.verify(&attempt, old, Some(user.password_hash.clone())).await;
            if !verified.map_err(|fault| password_fault("old_password", fault))? {
                let wrong = ApiError::new(Code::InvalidCredentials, "The old password is wrong.");
                return Err(attempt.wrong(wrong.at("old_password")));
            }
            let hashed = app.passwords.hash(&attempt, new, app.ids.secret()).await;
            attempt.right();
            Some(hashed.map_err(|fault| password_fault("password", fault))?)
        }
        (None, _) | (Some(_), None) => None,
    };
    app.accounts.update_user(caller.account, change.name.clone(), password_hash).await?;
    if let Some(name) = change.name {
        user.name = name;
    }
    Ok(Json(user.into()))
}
