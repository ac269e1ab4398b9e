//! Holds: making a record of what a caller says.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_audit::Asserted;
use batchin_domain::AccountId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once},
};

/// Both texts at their longest, escaped, and the rest.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Longest name of a model or GPU.
const MAX_NAME_CHARS: usize = 256;

/// What two texts were; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateAudit;

/// A record that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedAudit {
    #[schema(example = "019ad9a0-5c3e-7b12-9c55-2f0d2a1b3c4d")]
    audit_id: String,
    /// SHA-256 of the input text as UTF-8, in hex.
    input_hash: String,
    /// SHA-256 of the output text.
    output_hash: String,
    /// Ed25519, in hex.
    signature: String,
}

fn parse(body: &[u8]) -> Result<Asserted, ApiError> {
    let fields = Fields::parse(body, &["input_text", "output_text", "model_id", "gpu_id"])?;
    Ok(Asserted {
        input: whole("input_text", &fields)?,
        output: whole("output_text", &fields)?,
        model_id: name("model_id", fields.text("model_id")?)?,
        gpu_id: fields.optional_text("gpu_id")?.map(|text| name("gpu_id", text)).transpose()?,
    })
}

/// A text of which only the hash is kept: it may have anything that UTF-8 has.
fn whole(field: &'static str, fields: &Fields<'_>) -> Result<String, ApiError> {
    let missing = || ApiError::invalid(field, format!("`{field}` is missing."));
    let wrong = |_| ApiError::invalid(field, format!("`{field}` must be a string."));
    fields.value(field).ok_or_else(missing).and_then(|raw| serde_json::from_str(raw).map_err(wrong))
}

fn name(field: &'static str, text: String) -> Result<String, ApiError> {
    if (1..=MAX_NAME_CHARS).contains(&text.chars().count()) {
        return Ok(text);
    }
    Err(ApiError::invalid(field, format!("`{field}` must have 1 to {MAX_NAME_CHARS} characters.")))
}

/// Record what a model was asked and answered
///
/// The texts are hashed and not kept. The record proves that this key said so at this time (`source` is `client_asserted`), and
/// not that the model did.
#[utoipa::path(post, path = "/v1/audit", tag = "Audit", request_body = CreateAudit, responses(
    (status = 200, description = "The record", body = CreatedAudit),
    (status = 400, description = "A field is wrong", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 413, description = "A text has more than 1 MiB", body = ApiError),
    (status = 503, description = "This node cannot sign", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    let said = parse(&body)?;
    let creation = Creation { account: caller.account, route: "/v1/audit", body: &body, keep: Keep::Answer };
    once(&app, &parts.headers, creation, |_| record(app.clone(), caller.account, said)).await
}

async fn record(app: App, account: AccountId, said: Asserted) -> Result<CreatedAudit, ApiError> {
    let receipt = app.audit.assert(account, &said).await?;
    Ok(CreatedAudit {
        audit_id: receipt.id.to_string(),
        input_hash: receipt.input_hash,
        output_hash: receipt.output_hash,
        signature: receipt.signature,
    })
}
