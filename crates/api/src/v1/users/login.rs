//! Holds: login.

use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
};
use batchin_openai::Code;
use serde::Serialize;
use utoipa::ToSchema;

use super::{MAX_BODY_BYTES, UserObject, contact_fault, password_fault};
use crate::{
    app::App,
    auth::{InternalCaller, Open},
    body, contact,
    error::ApiError,
    fields::Fields,
    secret::Secret,
};

/// How long a login lasts: a working day.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Who logs in.
#[derive(ToSchema)]
pub(crate) struct Login {
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(example = "correct horse battery")]
    password: String,
}

/// The user, and a session that stands in for a key on management calls.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    #[serde(flatten)]
    user: UserObject,
    /// Sent as `Authorization: Bearer`; not for inference.
    #[schema(example = "batchin_session_…")]
    access_token: String,
    /// When the session ends by itself.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Log in
///
/// Takes the same time whether or not the email is known.
#[utoipa::path(post, path = "/v1/users/login", tag = "Users", security(()), request_body = Login, responses(
    (status = 200, description = "The user and a session", body = LoggedIn),
    (status = 400, description = "A field is missing or wrong", body = ApiError),
    (status = 401, description = "Wrong email or password", body = ApiError),
    (status = 429, description = "Too many attempts", body = ApiError)))]
pub(crate) async fn login(
    State(app): State<App>,
    caller: InternalCaller<Open>,
    request: Request,
) -> Result<Json<LoggedIn>, ApiError> {
    let (_, body) = body::received(&app.bodies.at(caller.origin.address), request, MAX_BODY_BYTES).await?;
    let fields = Fields::parse(&body, &["email", "password"])?;
    let wanted = Login {
        email: contact::email(&fields.text("email")?).map_err(|fault| contact_fault("email", fault))?,
        password: fields.text("password")?,
    };
    let attempt = app.attempts.begin(&wanted.email, caller.origin).await?;
    let user = app.accounts.user_by_email(&wanted.email).await?.filter(|user| !user.disabled);
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let verified = app.passwords.verify(&attempt, wanted.password, stored).await;
    let (Some(user), true) = (user, verified.map_err(|fault| password_fault("password", fault))?) else {
        return Err(attempt.wrong(ApiError::new(Code::InvalidCredentials, "Wrong email or password.")));
    };
    attempt.right();
    let session = Secret::session(app.ids.secret());
    let now = app.now();
    let expires_at = now.after(SESSION_LIFETIME);
    app.accounts.create_session(session.hash, user.id, now, expires_at).await?;
    Ok(Json(LoggedIn { user: user.into(), access_token: session.text, expires_at: expires_at.to_string() }))
}
