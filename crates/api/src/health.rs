//! Holds: whether the process lives, and whether it should be sent requests.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use batchin_store::Outage;
use http::StatusCode;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::app::App;

/// A database that takes longer to say that it is there is not.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether requests can be answered.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`, `draining` or `unready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The database answers and takes what is written to it.
    database: bool,
    /// What is wrong with the database, in words; absent while nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "its disk is full")]
    database_fault: Option<&'static str>,
    /// This node's lease is in force, so that it may spend.
    lease: bool,
    /// Models that some upstream can serve now.
    models_up: usize,
    /// Models configured.
    models: usize,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "Operation", security(()),
    responses((status = 200, description = "It lives", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The same under another name, which load generators and balancers ask for
#[utoipa::path(get, path = "/health", tag = "Operation", security(()),
    responses((status = 200, description = "It lives", body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    healthz().await
}

/// Whether the server should be sent requests
#[utoipa::path(get, path = "/readyz", tag = "Operation", security(()), responses(
    (status = 200, description = "It should", body = Readiness),
    (status = 503, description = "It should not", body = Readiness)))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let answers = matches!(timeout(PING_TIMEOUT, app.pulse.ping()).await, Ok(Ok(())));
    let outage = app.pulse.outage().or((!answers).then_some(Outage::Away));
    let (database, database_fault) = (outage.is_none(), outage.map(Outage::words));
    let lease = app.gateway.epoch().holds();
    let catalog = app.gateway.catalog();
    let models_up = catalog.models().iter().filter(|model| app.gateway.is_up(model)).count();
    let draining = app.stopping.is_cancelled();
    let (status, code) = match (draining, database && lease) {
        (true, _) => ("draining", StatusCode::SERVICE_UNAVAILABLE),
        (false, true) => ("ready", StatusCode::OK),
        (false, false) => ("unready", StatusCode::SERVICE_UNAVAILABLE),
    };
    let readiness = Readiness { status, database, database_fault, lease, models_up, models: catalog.models().len() };
    (code, Json(readiness)).into_response()
}
