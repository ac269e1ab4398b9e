//! Holds: the models with exactly the members that OpenAI's API has.

use axum::{Json, extract::State};
use batchin_gateway::{Model, RequestError};
use serde::Serialize;

use super::list::catalog;
use crate::{app::App, error::ApiError, path::PathText};

#[derive(Serialize)]
pub(crate) struct Plain {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

#[derive(Serialize)]
pub(crate) struct PlainList {
    object: &'static str,
    data: Vec<Plain>,
}

fn plain(app: &App, model: &Model) -> Plain {
    let (id, owned_by) = (model.id.clone(), model.owned_by.clone());
    Plain { id, object: "model", created: app.started_at.seconds(), owned_by }
}

pub(crate) async fn list(State(app): State<App>) -> Result<Json<PlainList>, ApiError> {
    let catalog = catalog(&app)?;
    let data = catalog.models().iter().map(|model| plain(&app, model)).collect();
    Ok(Json(PlainList { object: "list", data }))
}

pub(crate) async fn show(State(app): State<App>, id: PathText) -> Result<Json<Plain>, ApiError> {
    match app.gateway.catalog().find(id.as_str()) {
        Some(model) => Ok(Json(plain(&app, model))),
        None => Err(RequestError::ModelNotFound { model: id.as_str().to_owned() }.into()),
    }
}
