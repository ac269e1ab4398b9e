//! Holds: one model.

use axum::{Json, extract::State};
use batchin_gateway::AdmitError;

use super::{Anybody, ModelObject, object};
use crate::{app::App, error::ApiError, path::PathText};

/// A model by its id or an alias
#[utoipa::path(get, path = "/v1/models/{*id}", tag = "Models", security(()),
    params(("id" = String, Path, description = "May contain slashes")), responses(
    (status = 200, description = "The model", body = ModelObject),
    (status = 401, description = "A key was sent that does not work", body = ApiError),
    (status = 404, description = "No such model", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, _: Anybody, id: PathText) -> Result<Json<ModelObject>, ApiError> {
    let catalog = app.gateway.catalog();
    match catalog.find(id.as_str()) {
        Some(model) => Ok(Json(object(&app, model))),
        None => Err(AdmitError::ModelNotFound { model: id.as_str().to_owned() }.into()),
    }
}
