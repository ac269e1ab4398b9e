//! Holds: what a client is told when what it asks for is not in the store, or the store is not there.

use std::error::Error;

use batchin_gateway::DrainError;
use batchin_openai::Code;
use batchin_store::{CreateUserError, DeliveryError, StoreError, UpdateKeyError};
use batchin_webhooks::SecretError;
use tracing::{error, warn};

use super::ApiError;

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        if cause.is_passing() {
            warn!(error = &cause as &dyn Error, "the database did not answer a request");
            return Self::unavailable("The database does not answer; try again in a moment.");
        }
        error!(error = &cause as &dyn Error, "a request failed in the store");
        Self::internal()
    }
}

impl From<CreateUserError> for ApiError {
    fn from(cause: CreateUserError) -> Self {
        match cause {
            CreateUserError::EmailTaken => {
                Self::new(Code::Conflict, "This email is registered already.").at("email").permanent()
            }
            CreateUserError::Store(cause) => cause.into(),
        }
    }
}

impl From<UpdateKeyError> for ApiError {
    fn from(cause: UpdateKeyError) -> Self {
        match cause {
            UpdateKeyError::NotFound => Self::not_found("key"),
            UpdateKeyError::Store(cause) => cause.into(),
        }
    }
}

impl From<DeliveryError> for ApiError {
    fn from(cause: DeliveryError) -> Self {
        match cause {
            DeliveryError::NotFound => Self::not_found("delivery"),
            DeliveryError::Store(cause) => cause.into(),
        }
    }
}

impl From<DrainError> for ApiError {
    fn from(cause: DrainError) -> Self {
        match cause {
            DrainError::Unknown => Self::not_found("model server in the configuration"),
            DrainError::Store(cause) => cause.into(),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(cause: SecretError) -> Self {
        match cause {
            SecretError::WrongKey => {
                let message = "Webhook secrets cannot be used: the operator must repair `server.secret_key`.";
                Self::new(Code::ServiceUnavailable, message).permanent()
            }
            SecretError::Store(cause) => cause.into(),
        }
    }
}

impl ApiError {
    /// The blobs could not be reached.
    pub(crate) fn blob(cause: &(dyn Error + 'static)) -> Self {
        error!(error = cause, "a blob could not be read or written");
        Self::unavailable("The storage of batches and files does not answer; try again in a moment.")
    }
}
