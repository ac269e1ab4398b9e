//! Holds: the metrics page.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header::AUTHORIZATION, header::CONTENT_TYPE};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use crate::{app::App, error::ApiError};

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "Operation", security(()), responses(
    (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
    (status = 401, description = "The operator demands a token", body = ApiError),
    (status = 404, description = "The operator has switched it off", body = ApiError)))]
pub(crate) async fn scrape(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if !app.settings.metrics_enabled {
        return Err(ApiError::not_found("page"));
    }
    if let Some(token) = &app.settings.metrics_token {
        let sent =
            headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|sent| sent.strip_prefix(b"Bearer "));
        if !bool::from(sent.unwrap_or_default().ct_eq(token.expose_secret().as_bytes())) {
            return Err(ApiError::unauthorized("The metrics need the operator's own token."));
        }
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (app.metrics)()).into_response())
}
