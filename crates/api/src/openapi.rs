//! Holds: the description of the API, generated from the handlers.

mod bodies;
mod whole;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

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

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BatchIn",
        description = "A metered, OpenAI-compatible inference API. Money is in US cents as exact decimal numbers; \
                       model prices are US dollars per one million tokens.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorObject)),
    modifiers(&Keys),
    security(("api_key" = []))
)]
pub(crate) struct Description;

struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, or on management calls a session token from a login."))
            .build();
        let components = openapi.components.get_or_insert_with(Default::default);
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    }
}

pub(crate) use whole::complete;

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "Operation", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(crate) async fn show() -> Response {
    // Not copied: who asks for many and reads none takes no memory by it.
    let text = Bytes::from_static(crate::router::openapi_json().as_bytes());
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
