//! Holds: the audit log: records that are made, shown and checked, the keys, and the log itself as C2SP's tlog-tiles serves it.
//!
//! What is public may be read by any page: a browser checks it itself.

pub(crate) mod create;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod show;

use batchin_receipts::ShownRecord;
use http::{HeaderName, HeaderValue, header::ACCESS_CONTROL_ALLOW_ORIGIN};
use serde::Serialize;
use utoipa::ToSchema;

/// Read from any origin.
pub(crate) const ANY_ORIGIN: (HeaderName, HeaderValue) = (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));

/// A record.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditRecord {
    #[schema(example = "019ad9a0-5c3e-7b12-9c55-2f0d2a1b3c4d")]
    audit_id: String,
    /// SHA-256 of the input text as UTF-8, in hex.
    input_hash: String,
    /// SHA-256 of the output text.
    output_hash: String,
    model_id: String,
    /// As whoever made the record said.
    #[schema(required = true)]
    gpu_id: Option<String>,
    /// `client_asserted`: a key says that these texts belong together, and nobody has seen them made.
    #[schema(example = "client_asserted")]
    source: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// Ed25519 over the DSSE encoding (type `application/vnd.batchin.audit.v1+json`) of `signed_payload`, in hex.
    signature: String,
    /// The key that signed; see `GET /v1/audit/pubkeys`.
    key_id: String,
    /// The bytes that are signed: JSON in its one form (RFC 8785) with all of the above, and random bytes that hide it in the log.
    signed_payload: String,
    /// Where it is in the log; null for a moment after it was made, and in lists.
    #[schema(required = true)]
    log: Option<AuditPlace>,
}

/// A record's place in the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditPlace {
    /// The log's name.
    origin: String,
    /// Where the entry is: the SHA-256 hash of `signed_payload`.
    index: u64,
    /// The way from the entry's leaf to the root of the checkpoint (RFC 6962), in base64.
    inclusion_proof: Vec<String>,
    /// The signed checkpoint (C2SP tlog-checkpoint).
    checkpoint: String,
}

impl From<ShownRecord> for AuditRecord {
    fn from(shown: ShownRecord) -> Self {
        let place = |log: batchin_receipts::ShownLog| AuditPlace {
            origin: log.origin,
            index: log.index,
            inclusion_proof: log.inclusion_proof,
            checkpoint: log.checkpoint,
        };
        Self {
            audit_id: shown.audit_id,
            input_hash: shown.input_hash,
            output_hash: shown.output_hash,
            model_id: shown.model_id,
            gpu_id: shown.gpu_id,
            source: shown.source,
            created_at: shown.created_at,
            signature: shown.signature,
            key_id: shown.key_id,
            signed_payload: shown.signed_payload,
            log: shown.log.map(place),
        }
    }
}
