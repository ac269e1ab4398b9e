//! Holds: making a batch of a file.

use axum::{
    extract::{Request, State},
    response::Response,
};
use batchin_batch::{FileOrder, RawTerms, Remember, SubmitError, TaskFault};
use batchin_domain::{
    CallKind, Priority,
    text::{NOT_STORABLE, is_storable},
};
use batchin_gateway::Caller;
use batchin_store::{BatchRow, IdempotencyScope};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::BatchObject;
use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::ApiError,
    fields::Fields,
    idempotent::{Creation, Keep, once, remembered},
};

/// The metadata at its largest, every character escaped, and room for the rest.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// What may be said about when output files go, in seconds.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u32> = 3_600..=2_592_000;
/// OpenAI's batches are half price, and so are ours of this priority.
const PRIORITY: Priority = Priority::Low;

const KNOWN: &[&str] = &[
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
    "priority",
    "webhook_url",
    "max_cost_cents",
];

/// A file to be run; `openapi/bodies.rs` has its members.
#[derive(ToSchema)]
pub(crate) struct CreateBatchOfFile;

/// When a batch's output and error files go by themselves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ExpiresAfter {
    /// `created_at`, which is when the files are written.
    anchor: String,
    seconds: u32,
}

/// Run a file
///
/// The file is read after the answer: every line is checked before any of them runs. What is wrong is told in `errors`
/// of the batch, which has then `failed`.
#[utoipa::path(post, path = "/openai/v1/batches", tag = "Batches", request_body = CreateBatchOfFile,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "The batch", body = BatchObject),
    (status = 400, description = "A field is at fault", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ApiError),
    (status = 413, description = "The body is over 262,144 bytes", body = ApiError)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = body::received(&app.bodies.of(caller.account), request, MAX_BODY_BYTES).await?;
    of_body(app, caller, &parts.headers, body).await
}

/// Runs the file that a body names.
pub(crate) async fn of_body(
    app: App,
    caller: AccountCaller,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(ApiError::too_large(MAX_BODY_BYTES));
    }
    let order = read(&app, &Fields::parse(&body, KNOWN)?)?;
    let creation = Creation { account: caller.account, route: "/openai/v1/batches", body: &body, keep: Keep::Answer };
    let work = |scope| submit(app.clone(), caller.caller(), order, scope);
    once(&app, headers, creation, work).await
}

async fn submit(
    app: App,
    caller: Caller,
    order: FileOrder,
    scope: Option<IdempotencyScope>,
) -> Result<BatchObject, ApiError> {
    let remember = scope.map(|scope| -> Remember {
        Box::new(move |batch: &BatchRow| (scope, remembered(&BatchObject::from(batch.clone()))))
    });
    Ok(app.batches.submit_file(&caller, order, remember).await?.into())
}

/// Reads the members; all their faults come back together.
fn read(app: &App, fields: &Fields<'_>) -> Result<FileOrder, SubmitError> {
    let mut faults = Vec::new();
    let file = required("input_file_id", fields, &mut faults);
    let call = text("endpoint", fields, &mut faults).and_then(|url| call_of(&url, &mut faults));
    let window = required("completion_window", fields, &mut faults);
    let priority = text("priority", fields, &mut faults);
    let webhook_url = text("webhook_url", fields, &mut faults);
    let terms = RawTerms {
        priority: priority.as_deref(),
        webhook_url: webhook_url.as_deref(),
        completion_window: window.as_deref(),
        max_cost_cents: fields.value("max_cost_cents"),
        metadata: fields.value("metadata"),
    };
    let mut terms = app.batches.check_terms(&terms, PRIORITY, &mut faults);
    terms.call = call;
    terms.output_seconds = fields.value("output_expires_after").and_then(|raw| expiry(raw, &mut faults));
    if !faults.is_empty() {
        return Err(SubmitError::Invalid(faults));
    }
    // What is no id names no file.
    let file = file.and_then(|id| id.parse().ok()).ok_or(SubmitError::NoFile)?;
    Ok(FileOrder { file, terms })
}

fn required(name: &'static str, fields: &Fields<'_>, faults: &mut Vec<TaskFault>) -> Option<String> {
    if fields.value(name).is_none() {
        faults.push(fault(name, "is missing"));
    }
    text(name, fields, faults)
}

fn text(name: &'static str, fields: &Fields<'_>, faults: &mut Vec<TaskFault>) -> Option<String> {
    let read: Result<Option<String>, _> = fields.value(name).map(serde_json::from_str).transpose();
    let wrong = match read {
        Ok(text) if text.as_deref().is_none_or(is_storable) => return text,
        Ok(_) => NOT_STORABLE,
        Err(_) => "must be a string",
    };
    faults.push(fault(name, wrong));
    None
}

fn call_of(url: &str, faults: &mut Vec<TaskFault>) -> Option<CallKind> {
    let call = CallKind::from_url(url);
    if call.is_none() {
        let message = format!("must be one of {}, or left out if lines differ", CallKind::paths());
        faults.push(fault("endpoint", message));
    }
    call
}

fn expiry(raw: &str, faults: &mut Vec<TaskFault>) -> Option<u32> {
    let Ok(after) = serde_json::from_str::<ExpiresAfter>(raw) else {
        let message = "must be an object of `anchor`, a string, and `seconds`, a whole number";
        faults.push(fault("output_expires_after", message));
        return None;
    };
    if after.anchor != "created_at" {
        faults.push(fault("output_expires_after.anchor", "must be \"created_at\""));
    }
    if !EXPIRY_SECONDS.contains(&after.seconds) {
        let message = format!("must be from {} to {}", EXPIRY_SECONDS.start(), EXPIRY_SECONDS.end());
        faults.push(fault("output_expires_after.seconds", message));
    }
    Some(after.seconds)
}

fn fault(param: &'static str, message: impl Into<String>) -> TaskFault {
    TaskFault { param: param.to_owned(), message: message.into() }
}
