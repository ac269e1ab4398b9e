//! Holds: registration.

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_domain::AccountId;
use batchin_openai::Code;
use batchin_store::{CreateUserError, NewUser, Role};
use utoipa::ToSchema;

use super::{MAX_BODY_BYTES, UserObject, contact_fault, password_fault};
use crate::{
    app::App,
    attempts::Attempt,
    auth::{InternalCaller, Open},
    body, contact,
    error::ApiError,
    fields::Fields,
    idempotent,
    password::{PasswordError, fits},
};

/// A user to be created.
#[derive(ToSchema)]
pub(crate) struct CreateUser {
    /// Unique; kept in lower case.
    #[schema(example = "ada@example.com", max_length = 254)]
    email: String,
    #[schema(example = "Ada", max_length = 200)]
    name: String,
    #[schema(example = "correct horse battery", min_length = 8, max_length = 1024)]
    password: String,
}

impl CreateUser {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body, &["email", "name", "password"])?;
        let email = contact::email(&fields.text("email")?).map_err(|fault| contact_fault("email", fault))?;
        let name = contact::name(&fields.text("name")?).map_err(|fault| contact_fault("name", fault))?;
        let password = fields.text("password")?;
        if !fits(&password) {
            return Err(password_fault("password", PasswordError::Length));
        }
        Ok(Self { email, name, password })
    }
}

/// Register a user
///
/// Meant for a site's back end, which sends `X-Internal-Token` where the operator has set one. A new user has no
/// credit.
#[utoipa::path(post, path = "/v1/users", tag = "Users", security(()), request_body = CreateUser, responses(
    (status = 200, description = "The user", body = UserObject),
    (status = 400, description = "A field is missing or wrong", body = ApiError),
    (status = 401, description = "The internal token is missing", body = ApiError),
    (status = 403, description = "Registration is closed", body = ApiError),
    (status = 409, description = "The email is registered already", body = ApiError),
    (status = 429, description = "Too many attempts", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: InternalCaller<Open>,
    request: Request,
) -> Result<Json<UserObject>, ApiError> {
    if !app.settings.registration_open {
        return Err(ApiError::new(Code::Forbidden, "Registration is closed."));
    }
    let (parts, body) = request.into_parts();
    let key = idempotent::key(&parts.headers)?;
    let wanted = CreateUser::parse(
        &body::read(&app.bodies.at(caller.origin.address), &parts.headers, body, MAX_BODY_BYTES).await?,
    )?;
    // With a key it tells a right password from a wrong one, as a login does.
    let attempt = app.attempts.begin(&wanted.email, caller.origin).await?;
    // Hashed before it is known whether the email is free, so that both take the same time.
    let hashed = app.passwords.hash(&attempt, wanted.password.clone(), app.ids.secret()).await;
    let password_hash = hashed.map_err(|fault| password_fault("password", fault))?;
    let new = NewUser {
        id: AccountId::new(app.ids.uuid()),
        email: wanted.email.clone(),
        name: wanted.name.clone(),
        password_hash,
        role: Role::User,
        now: app.now(),
    };
    match app.accounts.create_user(new).await {
        Ok(user) => {
            attempt.right();
            Ok(Json(user.into()))
        }
        Err(CreateUserError::EmailTaken) if key.is_some() => again(&app, attempt, wanted).await.map(Json),
        Err(cause @ CreateUserError::EmailTaken) => Err(attempt.wrong(cause)),
        Err(cause @ CreateUserError::Store(_)) => Err(cause.into()),
    }
}

/// The first answer to a registration that is sent again under an Idempotency-Key. Nothing of the first request is
/// stored for this, since its hash would be one of the password: whoever has the password is whom it was made for.
async fn again(app: &App, attempt: Attempt<'_>, wanted: CreateUser) -> Result<UserObject, ApiError> {
    let known = app.accounts.user_by_email(&wanted.email).await?;
    let stored = known.as_ref().map(|user| user.password_hash.clone());
    let verified = app.passwords.verify(&attempt, wanted.password, stored).await;
    match (known, verified.map_err(|fault| password_fault("password", fault))?) {
        (Some(user), true) if user.name == wanted.name => {
            attempt.right();
            Ok(user.into())
        }
        _ => Err(attempt.wrong(CreateUserError::EmailTaken)),
    }
}
