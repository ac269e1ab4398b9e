//! Holds: the models with exactly the members that OpenAI's API has.

use axum::{Json, extract::State};
use batchin_gateway::{AdmitError, Model};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Anybody, list::catalog};
use crate::{app::App, error::ApiError, path::PathText};

/// A model.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModel)]
pub(crate) struct Plain {
    #[schema(example = "smollm2-135m-instruct")]
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// When this server began to serve it, in Unix seconds.
    created: i64,
    owned_by: String,
}

/// The models.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModelList)]
pub(crate) struct PlainList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Plain>,
}

fn plain(app: &App, model: &Model) -> Plain {
    let (id, owned_by) = (model.id.clone(), model.owned_by.clone());
    Plain { id, object: "model", created: app.started_at.seconds(), owned_by }
}

/// The models that are served
#[utoipa::path(get, path = "/openai/v1/models", tag = "Models", security(()), responses(
    (status = 200, description = "The models", body = PlainList),
    (status = 401, description = "A key was sent, and it is none", body = ApiError),
    (status = 503, description = "No model can be served now", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, _: Anybody) -> Result<Json<PlainList>, ApiError> {
    let catalog = catalog(&app)?;
    let data = catalog.models().iter().map(|model| plain(&app, model)).collect();
    Ok(Json(PlainList { object: "list", data }))
}

/// A model by its id or an alias
#[utoipa::path(get, path = "/openai/v1/models/{*id}", tag = "Models", security(()),
    params(("id" = String, Path, description = "May contain slashes")), responses(
    (status = 200, description = "The model", body = Plain),
    (status = 401, description = "A key was sent, and it is none", body = ApiError),
    (status = 404, description = "No such model", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, _: Anybody, id: PathText) -> Result<Json<Plain>, ApiError> {
    match app.gateway.catalog().find(id.as_str()) {
        Some(model) => Ok(Json(plain(&app, model))),
        None => Err(AdmitError::ModelNotFound { model: id.as_str().to_owned() }.into()),
    }
}
