//! Holds: which flavour of a call is meant where both have the same path.
//!
//! Below `/v1`, batches have our shapes. An OpenAI client whose base URL is `/v1` means OpenAI's all the same: it says who
//! it is, and asks for batches by ids of OpenAI's form. What any other client asks there is ours.

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header::USER_AGENT};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    app::App,
    auth::AccountCaller,
    body,
    error::ApiError,
    openai::batches::create::of_body,
    path::BATCH,
    v1::batches::{
        BatchObject,
        create::{CreateBatch, of_tasks},
    },
};

/// What the official clients send with every request.
const X_STAINLESS_LANG: HeaderName = HeaderName::from_static("x-stainless-lang");
/// How the official clients name themselves: `OpenAI/Python 3.54.0`, `AsyncOpenAI/Python 3.54.0`, `OpenAI/JS 7.1.0`.
const OPENAI: &str = "OpenAI/";

/// The path in OpenAI's flavour, where a request for batches below `/v1`, or at the root, means that.
pub(crate) fn meant<B>(request: &http::Request<B>) -> Option<Uri> {
    let path = request.uri().path();
    let bare = path.strip_prefix("/v1").unwrap_or(path);
    let below = bare.strip_prefix("/batches")?;
    let theirs = below.strip_prefix('/').filter(|id| id.starts_with(BATCH));
    // What OpenAI does not have below a batch is ours, by whatever form of its id.
    let is_theirs = match request.method().as_str() {
        "GET" => below.is_empty() || theirs.is_some_and(|id| !id.contains('/')),
        "POST" => theirs.is_some_and(|id| id.ends_with("/cancel")),
        _ => false,
    };
    if !is_theirs || !is_openai_client(request.headers()) {
        return None;
    }
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    format!("/openai/v1{bare}{query}").parse().ok()
}

fn is_openai_client(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    headers.contains_key(X_STAINLESS_LANG) || agent.is_some_and(|agent| agent.contains(OPENAI))
}

/// Submit a batch
///
/// One batch may mix models and kinds of task. Every fault is reported with its position before anything is stored. A
/// body with `input_file_id` in place of `tasks` is OpenAI's: it is taken, and answered, as at POST /openai/v1/batches.
#[utoipa::path(post, path = "/v1/batches", tag = "Batches", request_body = CreateBatch,
    params(("Idempotency-Key" = Option<String>, Header, description = "Same key, same body: the first answer again")),
    responses(
    (status = 200, description = "The batch", body = BatchObject),
    (status = 400, description = "The batch is at fault", body = ApiError),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 404, description = "No such file in this account", body = ApiError),
    (status = 409, description = "The Idempotency-Key was used for something else", body = ApiError),
    (status = 402, description = "An account without credit keeps no more files", body = ApiError),
    (status = 413, description = "The body is over 2,000,000 bytes, or the account keeps no more", body = ApiError),
    (status = 507, description = "The server's disk is nearly full", body = ApiError)))]
pub(crate) async fn create_batch(
    State(app): State<App>,
    caller: AccountCaller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) =
        body::received(&app.bodies.of(caller.account), request, app.settings.max_inline_batch_bytes).await?;
    if names_file(&body) {
        return of_body(app, caller, &parts.headers, body).await;
    }
    of_tasks(app, caller, &parts.headers, body).await
}

/// Whether the body of a new batch names a file, as OpenAI's do, in place of tasks.
fn names_file(body: &Bytes) -> bool {
    #[derive(Deserialize)]
    struct Order {
        input_file_id: Option<IgnoredAny>,
        tasks: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Order>(body).is_ok_and(|order| order.input_file_id.is_some() && order.tasks.is_none())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn meant_by(method: Method, uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        meant(&request.body(()).unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn only_openais_clients_mean_openais_batches() {
        let python = [("user-agent", "AsyncOpenAI/Python 3.54.0")];
        let stainless = [("x-stainless-lang", "js")];
        let id = "batch_0197f3a00000700080000000000000ab";
        for (method, path) in [
            (Method::GET, "/batches".to_owned()),
            (Method::GET, "/batches?limit=2&after=x".to_owned()),
            (Method::GET, format!("/batches/{id}")),
            (Method::POST, format!("/batches/{id}/cancel")),
        ] {
            for prefix in ["/v1", ""] {
                let uri = format!("{prefix}{path}");
                for headers in [&python, &stainless] {
                    assert_eq!(meant_by(method.clone(), &uri, headers), Some(format!("/openai/v1{path}")), "{uri}");
                }
                assert_eq!(meant_by(method.clone(), &uri, &[("user-agent", "curl/8")]), None, "{uri}");
            }
        }
        for (method, uri) in [
            (Method::POST, "/v1/batches"),
            (Method::GET, "/v1/batches/batch_0197f3a00000700080000000000000ab/results"),
            (Method::GET, "/v1/batches/0197f3a0-0000-7000-8000-0000000000ab"),
            (Method::GET, "/v1/batchesx"),
            (Method::GET, "/v1/files"),
            (Method::GET, "/openai/v1/batches"),
        ] {
            assert_eq!(meant_by(method, uri, &python), None, "{uri}");
        }
    }

    #[test]
    fn a_body_that_names_a_file_is_told_from_one_with_tasks() {
        let is = |body: &'static str| names_file(&Bytes::from_static(body.as_bytes()));
        assert!(is(r#"{"input_file_id": "file-1", "endpoint": "/v1/embeddings"}"#));
        assert!(is(r#"{"input_file_id": 5}"#), "which is a fault that OpenAI's flavour names");
        for ours in
            [r#"{"tasks": []}"#, r#"{"tasks": [], "input_file_id": "x"}"#, r#"{"input_file_id": null}"#, "[", ""]
        {
            assert!(!is(ours), "{ours}");
        }
    }
}
