//! Holds: users: registration, login, and what they see of themselves.

pub(crate) mod by_email;
pub(crate) mod create;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod me;
pub(crate) mod update;

use batchin_store::User;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{cents::Cents, contact::InvalidContact, error::ApiError, password::PasswordError};

/// Largest body of a call about users, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserObject {
    id: Uuid,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(example = "Ada")]
    name: String,
    credit_balance_cents: Cents,
    /// Money went back that was spent or set aside already; nothing is spent until there is enough again.
    frozen: bool,
}

impl From<User> for UserObject {
    fn from(user: User) -> Self {
        Self {
            id: user.id.uuid(),
            email: user.email,
            name: user.name,
            credit_balance_cents: user.balance.into(),
            frozen: user.frozen,
        }
    }
}

fn contact_fault(field: &'static str, fault: InvalidContact) -> ApiError {
    ApiError::invalid(field, format!("`{field}` {fault}."))
}

fn password_fault(field: &'static str, fault: PasswordError) -> ApiError {
    match fault {
        PasswordError::Length => {
            let (min, max) = (crate::password::MIN_CHARS, crate::password::MAX_CHARS);
            ApiError::invalid(field, format!("`{field}` must have {min} to {max} characters."))
        }
        PasswordError::Busy => ApiError::unavailable("Too many passwords are being checked; try again in a moment."),
        PasswordError::Hash => ApiError::internal(),
    }
}
