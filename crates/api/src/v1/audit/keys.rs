//! Holds: the keys that sign records and the log.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use batchin_audit::ShownKey;
use serde::Serialize;
use utoipa::ToSchema;

use super::ANY_ORIGIN;
use crate::{app::App, error::ApiError};

/// The key that signs.
#[derive(Serialize, ToSchema)]
pub(crate) struct CurrentKey {
    /// An Ed25519 public key, in hex.
    verify_key_hex: String,
    key_id: String,
    #[schema(example = "ed25519")]
    alg: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A key in every form that somebody may need.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicKey {
    key_id: String,
    /// An Ed25519 public key, in hex.
    verify_key_hex: String,
    #[schema(example = "ed25519")]
    alg: &'static str,
    /// As a SubjectPublicKeyInfo in PEM.
    spki_pem: String,
    /// As a COSE_Key (RFC 9053), in hex.
    cose_key_hex: String,
    /// As a verifier key of signed notes (C2SP), for the log's checkpoints.
    note_key: String,
    #[schema(format = DateTime)]
    created_at: String,
}

/// The keys of the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicKeys {
    /// The log's name.
    origin: String,
    /// The one that signs now first.
    data: Vec<PublicKey>,
}

impl From<ShownKey> for PublicKey {
    fn from(shown: ShownKey) -> Self {
        Self {
            verify_key_hex: shown.key.hex(),
            alg: "ed25519",
            spki_pem: shown.key.spki_pem(),
            cose_key_hex: shown.key.cose_key_hex(),
            note_key: shown.note_key,
            key_id: shown.key_id,
            created_at: shown.created_at,
        }
    }
}

/// The key that signs records
#[utoipa::path(get, path = "/v1/audit/pubkey/current", tag = "Audit", security(()),
    responses((status = 200, description = "The key", body = CurrentKey)))]
pub(crate) async fn current(State(app): State<App>) -> Result<Response, ApiError> {
    let key = app.audit.keys().await?.into_iter().next().ok_or_else(ApiError::internal)?;
    let (verify_key_hex, key_id, created_at) = (key.key.hex(), key.key_id, key.created_at);
    Ok(([ANY_ORIGIN], Json(CurrentKey { verify_key_hex, key_id, alg: "ed25519", created_at })).into_response())
}

/// All keys that sign, or did
#[utoipa::path(get, path = "/v1/audit/pubkeys", tag = "Audit", security(()),
    responses((status = 200, description = "The keys", body = PublicKeys)))]
pub(crate) async fn all(State(app): State<App>) -> Result<Response, ApiError> {
    let data = app.audit.keys().await?.into_iter().map(PublicKey::from).collect();
    Ok(([ANY_ORIGIN], Json(PublicKeys { origin: app.audit.origin().to_string(), data })).into_response())
}
