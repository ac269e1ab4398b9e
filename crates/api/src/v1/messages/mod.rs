//! Holds: what belongs to Anthropic's messages beside answering them.

pub(crate) mod count_tokens;

use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong with a call of Anthropic's API, as its clients read it.
#[derive(Serialize, ToSchema)]
#[schema(as = MessagesError)]
pub(crate) struct MessagesErrorObject {
    #[schema(example = "error")]
    r#type: &'static str,
    error: MessagesErrorDetail,
    /// The request's, as in `x-request-id`.
    request_id: String,
}

/// An error.
#[derive(Serialize, ToSchema)]
struct MessagesErrorDetail {
    /// For a program.
    #[schema(example = "invalid_request_error")]
    r#type: String,
    /// For a person: what is wrong and what to do.
    message: String,
}
