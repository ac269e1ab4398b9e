//! Holds: the schema of the one error shape, for the description of the API.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::ApiError;

impl PartialSchema for ApiError {
    fn schema() -> RefOr<Schema> {
        ErrorObject::schema()
    }
}

impl ToSchema for ApiError {
    fn name() -> Cow<'static, str> {
        ErrorObject::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ErrorObject::schemas(schemas);
    }
}

/// What went wrong; every error of every call looks like this.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
struct ErrorObject {
    error: ErrorDetail,
}

/// An error.
#[derive(Serialize, ToSchema)]
struct ErrorDetail {
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
