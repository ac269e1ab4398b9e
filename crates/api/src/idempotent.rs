//! Holds: creations that carry an Idempotency-Key: carried out once, answered as often as they are asked.
//!
//! Inference has its own in the gateway, where the answer is stored with its charge.

use std::{future::Future, time::Duration};

use axum::response::{IntoResponse, Response};
use batchin_domain::AccountId;
use batchin_gateway::{IdempotencyGuard, Keyed, KeyedError, Turn};
use batchin_openai::Code;
use batchin_store::{IdempotencyScope, StoredAnswer};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use tracing::warn;

use crate::{app::App, error::ApiError};

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// How long a second request waits for the first one's answer.
const PATIENCE: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Whether a creation's answer may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is given again.
    Answer,
    /// It shows a secret: that it was given is remembered, and nothing else.
    Nothing,
}

/// A creation: whose it is, which call, and what was sent.
pub(crate) struct Creation<'a> {
    pub(crate) account: AccountId,
    pub(crate) route: &'static str,
    pub(crate) body: &'a [u8],
    pub(crate) keep: Keep,
}

/// The client's own name for the request.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let bytes = value.as_bytes();
    let is_plain = (1..=MAX_KEY_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text) if is_plain => Ok(Some(text.to_owned())),
        _ => Err(ApiError::invalid(
            "Idempotency-Key",
            format!("The header Idempotency-Key must have 1 to {MAX_KEY_BYTES} visible ASCII characters."),
        )),
    }
}

/// Carries a creation out, or gives the first answer again. The work is told the scope, so that it can remember its
/// answer together with what it creates.
pub(crate) async fn once<T, W>(
    app: &App,
    headers: &HeaderMap,
    creation: Creation<'_>,
    work: impl FnOnce(Option<IdempotencyScope>) -> W,
) -> Result<Response, ApiError>
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let Some(key) = key(headers)? else { return Ok(json(encode(&work(None).await?)?)) };
    let scope = IdempotencyScope { account: creation.account, key };
    let keyed = Keyed { scope, route: creation.route, body: creation.body, patience: PATIENCE };
    match app.gateway.begin_idempotent(|| app.gateway.epoch().identity, keyed).await {
        Ok(Turn::First(guard)) => {
            let work = work(Some(guard.scope().clone()));
            let created = app.tasks.see_through("idempotent_creation", first(guard, creation.keep, work));
            created.await.ok_or_else(ApiError::internal)?.map(json)
        }
        Ok(Turn::Replay(answer)) => {
            let mut response = json(answer.body.unwrap_or_default());
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Err(KeyedError::Cut) => Err(cannot_repeat()),
        Err(cause) => Err(cause.into()),
    }
}

/// Carries it out and remembers what was created.
async fn first<T: Serialize>(
    guard: IdempotencyGuard,
    keep: Keep,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<Vec<u8>, ApiError> {
    let created = match work.await {
        Ok(created) => encode(&created),
        Err(error) => Err(error),
    };
    batchin_faults::point("creation.made");
    match &created {
        Ok(body) => {
            let body = (keep == Keep::Answer).then(|| body.clone());
            let answer = StoredAnswer { status: 200, content_type: "application/json".to_owned(), body };
            // Changes nothing where the work has remembered it.
            if let Err(cause) = guard.remember(&answer).await {
                warn!(error = &cause as &dyn std::error::Error, "the answer to an Idempotency-Key could not be noted");
            }
        }
        Err(_) => guard.release().await,
    }
    batchin_faults::point("creation.noted");
    created
}

/// What is remembered of a creation's answer.
pub(crate) fn remembered<T: Serialize>(created: &T) -> StoredAnswer {
    let body = serde_json::to_vec(created).ok();
    StoredAnswer { status: 200, content_type: "application/json".to_owned(), body }
}

fn encode<T: Serialize>(created: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(created).map_err(|_| ApiError::internal())
}

fn json(body: Vec<u8>) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn cannot_repeat() -> ApiError {
    let message = "This was created before with the same Idempotency-Key, and its secret is shown only once.";
    ApiError::new(Code::Conflict, message).permanent()
}
