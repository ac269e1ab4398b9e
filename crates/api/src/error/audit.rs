//! Holds: what a client is told when a record is not made or shown.

use std::error::Error;

use batchin_audit::{LogError, RecordError};
use batchin_openai::Code;
use tracing::error;

use super::ApiError;

impl From<RecordError> for ApiError {
    fn from(cause: RecordError) -> Self {
        match cause {
            RecordError::TooLong { field, most } => {
                let message =
                    format!("`{field}` has more than {most} bytes; record its parts, or what a hash of it is.");
                Self::new(Code::PayloadTooLarge, message).at(field).permanent()
            }
            RecordError::OtherKey => {
                let message = "This server has not the key that signs the audit log. Operators: give all nodes of one \
                               database the same server.secret_key.";
                Self::new(Code::ServiceUnavailable, message).permanent()
            }
            RecordError::Full => Self::unavailable("Too many records come at once; try again in a moment."),
            RecordError::NotStored => Self::internal(),
            RecordError::Store(cause) => cause.into(),
            RecordError::Log(cause) => log(&cause),
        }
    }
}

fn log(cause: &LogError) -> ApiError {
    error!(error = cause as &dyn Error, "the audit log could not be read");
    ApiError::internal()
}
