//! Holds: a record, in each of its forms, and whether it is in order.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use batchin_domain::AuditId;
use batchin_openai::Code;
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE, VARY},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ANY_ORIGIN, AuditRecord};
use crate::{app::App, error::ApiError, path::PathText};

const COSE: &str = "application/scitt-receipt+cose";
const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    TlogProof,
    Cose,
}

impl Form {
    /// What a request asks for first.
    fn accepted(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let form = |media: &str| match media.split(';').next().unwrap_or_default().trim() {
            "text/plain" => Some(Self::TlogProof),
            COSE => Some(Self::Cose),
            "application/json" => Some(Self::Json),
            _ => None,
        };
        texts.flat_map(|text| text.split(',')).find_map(form).unwrap_or(Self::Json)
    }
}

fn none() -> ApiError {
    ApiError::not_found("audit record")
}

fn waits() -> ApiError {
    let message = "The record has no place in the log yet; ask again in a moment.";
    ApiError::unavailable(message)
}

/// A record
///
/// Public: whoever knows its id may see it. As JSON with its proof; with `Accept: text/plain` as a proof of C2SP (tlog-proof,
/// whose `extra` is `signed_payload`); with `Accept: application/scitt-receipt+cose` as a COSE receipt (RFC 9942). The entry in
/// the log is the SHA-256 hash of `signed_payload`.
#[utoipa::path(get, path = "/v1/audit/{id}", tag = "Audit", security(()), params(("id" = String, Path)), responses(
    (status = 200, description = "The record", content(
        (AuditRecord = "application/json"), (String = "text/plain"), (Vec<u8> = "application/scitt-receipt+cose"))),
    (status = 404, description = "There is no such record", body = ApiError),
    (status = 503, description = "It has no place in the log yet, and the form asked for needs one", body = ApiError)))]
pub(crate) async fn show(State(app): State<App>, headers: HeaderMap, path: PathText) -> Result<Response, ApiError> {
    let id: AuditId = path.id("audit record")?;
    let vary = (VARY, http::HeaderValue::from_static("accept"));
    let form = Form::accepted(&headers);
    let proven = match form {
        Form::Json => None,
        Form::TlogProof => app.audit.tlog_proof(id).await?.map(|text| (TEXT, Bytes::from(text))),
        Form::Cose => app.audit.cose(id).await?.map(|bytes| (COSE, Bytes::from(bytes))),
    };
    if let Some((kind, bytes)) = proven {
        return Ok(([ANY_ORIGIN, vary], [(CONTENT_TYPE, kind)], bytes).into_response());
    }
    let shown = app.audit.shown(id).await?.ok_or_else(none)?;
    match form {
        Form::Json => Ok(([ANY_ORIGIN, vary], Json(AuditRecord::from(shown))).into_response()),
        Form::TlogProof | Form::Cose => Err(waits()),
    }
}

/// Whether a record is in order.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditVerdict {
    #[schema(example = "019ad9a0-5c3e-7b12-9c55-2f0d2a1b3c4d")]
    audit_id: String,
    valid: bool,
}

/// Whether a record is in order
///
/// The server's own word: signature, and place in the log. Whoever does not trust it checks the record themselves.
#[utoipa::path(get, path = "/v1/audit/{id}/verify", tag = "Audit", security(()), params(("id" = String, Path)), responses(
    (status = 200, description = "Whether it is", body = AuditVerdict),
    (status = 404, description = "There is no such record", body = ApiError)))]
pub(crate) async fn verify(State(app): State<App>, path: PathText) -> Result<Response, ApiError> {
    let id: AuditId = path.id("audit record")?;
    let valid = app.audit.verify(id).await?.ok_or_else(none)?;
    Ok(([ANY_ORIGIN], Json(AuditVerdict { audit_id: id.to_string(), valid })).into_response())
}

/// What the log has not.
pub(super) fn nothing_there() -> ApiError {
    ApiError::new(Code::NotFound, "The log has nothing there.")
}
