//! Holds: the list of models.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use batchin_gateway::Catalog;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Anybody, ModelObject, anthropic, object};
use crate::{app::App, error::ApiError};

/// The models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelObject>,
}

/// The catalogue, while any model server passes its health check.
pub(super) fn catalog(app: &App) -> Result<Arc<Catalog>, ApiError> {
    if app.gateway.fleet().replicas().iter().any(|replica| replica.passes_health_check()) {
        return Ok(app.gateway.catalog());
    }
    Err(ApiError::unavailable("No model server answers now; try again in a moment."))
}

/// The models that are served
///
/// In the shape of Anthropic's API where the header `anthropic-version` is sent.
#[utoipa::path(get, path = "/v1/models", tag = "Models", security(()), responses(
    (status = 200, description = "The models", body = ModelList),
    (status = 401, description = "A key was sent that does not work", body = ApiError),
    (status = 503, description = "No model server passes its health check", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, _: Anybody, headers: HeaderMap) -> Result<Response, ApiError> {
    let catalog = catalog(&app)?;
    if anthropic::is_meant(&headers) {
        return Ok(Json(anthropic::page(&app, &catalog)).into_response());
    }
    let data = catalog.models().iter().map(|model| object(&app, model)).collect();
    Ok(Json(ModelList { object: "list", data }).into_response())
}
