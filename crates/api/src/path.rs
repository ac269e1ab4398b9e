//! Holds: ids in paths. What is no id names nothing.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;

use crate::{app::App, error::ApiError};

/// The one text in the path.
pub(crate) struct PathText(String);

impl PathText {
    /// As it stands.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As an id of a `what`.
    pub(crate) fn id<I: FromStr>(&self, what: &'static str) -> Result<I, ApiError> {
        self.0.parse().map_err(|_| ApiError::not_found(what))
    }
}

impl FromRequestParts<App> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(text)| Self(text)).map_err(|_| ApiError::not_found("object"))
    }
}
