//! Holds: the list of models.

use std::sync::Arc;

use axum::{Json, extract::State};
use batchin_gateway::Catalog;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ModelObject, is_up, object};
use crate::{app::App, error::ApiError, openapi::ErrorObject};

/// The models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelObject>,
}

/// The catalogue, while anything in it can be served.
pub(super) fn catalog(app: &App) -> Result<Arc<Catalog>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::unavailable("The server is shutting down."));
    }
    let catalog = app.gateway.catalog();
    if catalog.models().iter().any(|model| is_up(app, model)) {
        return Ok(catalog);
    }
    Err(ApiError::unavailable("No model can be served now; try again in a moment."))
}

/// The models that are served
#[utoipa::path(get, path = "/v1/models", tag = "Models", security(()), responses(
    (status = 200, description = "The models", body = ModelList),
    (status = 503, description = "No model can be served now", body = ErrorObject)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let catalog = catalog(&app)?;
    let data = catalog.models().iter().map(|model| object(&app, model)).collect();
    Ok(Json(ModelList { object: "list", data }))
}
