//! Holds: the look-up that a site makes before a login.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use batchin_store::Accounts;

use super::{UserObject, contact_fault};
use crate::{
    auth::{InternalCaller, Lookup},
    contact,
    error::ApiError,
    query::Parameters,
};

/// Look a user up by email
///
/// It shows a balance to whoever knows an email, so it is open on loopback only, unless the operator decides
/// otherwise; elsewhere it needs `X-Internal-Token`.
#[utoipa::path(get, path = "/v1/users/by-email", tag = "Users", security(()),
    params(("email" = String, Query, example = "ada@example.com")), responses(
    (status = 200, description = "The user", body = UserObject),
    (status = 401, description = "The internal token is missing", body = ApiError),
    (status = 404, description = "Nobody has this email", body = ApiError),
    (status = 429, description = "Too many attempts", body = ApiError)))]
pub(crate) async fn by_email(
    State(accounts): State<Accounts>,
    _: InternalCaller<Lookup>,
    RawQuery(query): RawQuery,
) -> Result<Json<UserObject>, ApiError> {
    let parameters = Parameters::parse(query.as_deref(), &["email"])?;
    let email = contact::email(parameters.required("email")?).map_err(|fault| contact_fault("email", fault))?;
    let user = accounts.user_by_email(&email).await?;
    Ok(Json(user.ok_or_else(|| ApiError::not_found("user"))?.into()))
}
