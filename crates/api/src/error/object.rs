//! Holds: the schema of the one error shape, for the description of the API.

use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong; every error of every call looks like this.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorObject {
    error: ErrorDetail,
}

/// An error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For a person: what is wrong and what to do.
    message: String,
    /// The family.
    #[schema(example = "invalid_request_error")]
    r#type: String,
    /// The field or parameter at fault.
    #[schema(required = true)]
    param: Option<String>,
    /// For a program.
    #[schema(example = "invalid_request")]
    code: String,
}
