//! Holds: one model.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use batchin_gateway::AdmitError;
use http::HeaderMap;

use super::{Anybody, ModelObject, anthropic, object};
use crate::{app::App, error::ApiError, path::PathText};

/// A model by its id or an alias
///
/// In the shape of Anthropic's API where the header `anthropic-version` is sent.
#[utoipa::path(get, path = "/v1/models/{*id}", tag = "Models", security(()),
    params(("id" = String, Path, description = "May contain slashes")), responses(
    (status = 200, description = "The model", body = ModelObject),
    (status = 401, description = "A key was sent that does not work", body = ApiError),
    (status = 404, description = "No such model", body = ApiError)))]
pub(crate) async fn show(
    State(app): State<App>,
    _: Anybody,
    headers: HeaderMap,
    id: PathText,
) -> Result<Response, ApiError> {
    let catalog = app.gateway.catalog();
    match catalog.find(id.as_str()) {
        Some(model) if anthropic::is_meant(&headers) => Ok(Json(anthropic::shown(&app, model)).into_response()),
        Some(model) => Ok(Json(object(&app, model)).into_response()),
        None => Err(AdmitError::ModelNotFound { model: id.as_str().to_owned() }.into()),
    }
}
