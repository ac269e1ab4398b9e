//! Holds: what browsers ask before a page of another origin may call (`server.cors_origins`).

use http::{
    HeaderMap, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};

/// Every method that some path takes.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
/// What a page may read of an answer beside what browsers always show.
const EXPOSED: &str = "x-request-id, x-batchin-request-id, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
                       x-ratelimit-reset-requests, retry-after, retry-after-ms, x-should-retry, idempotent-replayed, \
                       openai-processing-ms, x-batchin-model-served, content-disposition, content-range, etag, \
                       payment-required, payment-response";
/// Headers that a page may send where it does not name them.
const HEADERS: &str = "authorization, content-type, x-api-key, idempotency-key, x-request-id, payment-signature";
/// How long a browser may remember, in seconds: browsers cap it at two hours.
const MAX_AGE: &str = "7200";
/// Longest list of headers that is allowed by repeating it.
const MAX_HEADERS_BYTES: usize = 4_096;

/// The value of `access-control-allow-origin` for a request, if its origin may call.
pub(crate) fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    if origins.is_empty() {
        return None;
    }
    let origin = headers.get(ORIGIN)?;
    if origins.iter().any(|allowed| allowed == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Whether answers differ by origin, so that what keeps them must know.
pub(crate) fn varies(origins: &[String]) -> bool {
    !origins.is_empty() && origins.iter().all(|allowed| allowed != "*")
}

/// Whether a request only asks what it may do.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What it may do.
pub(crate) fn preflight(asked: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let named = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| names.len() <= MAX_HEADERS_BYTES);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    // By name: a browser does not take `*` for `authorization`.
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, named.cloned().unwrap_or(HeaderValue::from_static(HEADERS)));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    headers.append(VARY, HeaderValue::from_static("access-control-request-headers"));
    headers
}

/// Says in an answer that its origin may read it, and whether that depends on the origin.
pub(crate) fn mark(origin: Option<HeaderValue>, varies: bool, headers: &mut HeaderMap) {
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    if varies {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}
