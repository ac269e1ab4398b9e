//! Holds: the description of the API, generated from the handlers and from the table of inference calls.

mod bodies;
mod money;
mod whole;

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::error::ApiError;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "BatchIn",
        description = "A metered, OpenAI-compatible inference API. Money is in US cents as exact decimal numbers; \
                       model prices are US dollars per one million tokens.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ApiError)),
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
