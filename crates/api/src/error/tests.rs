//! Checks: what a client is told of every failure of a request, to the byte.

use batchin_gateway::Capability;
use http_body_util::BodyExt as _;

use super::*;

/// Status, headers and the error's members, in the order in which they are sent.
async fn told(error: impl Into<ApiError>) -> String {
    let (parts, body) = error.into().into_response().into_parts();
    assert_eq!(parts.headers[CONTENT_TYPE], "application/json");
    let others = parts.headers.iter().filter(|(name, _)| *name != CONTENT_TYPE);
    let mut headers: Vec<_> = others.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    headers.sort_unstable();
    let body = body.collect().await.unwrap().to_bytes();
    let members = std::str::from_utf8(&body).unwrap().strip_prefix(r#"{"error":{"message":"#).unwrap();
    format!("{} [{}] {}", parts.status.as_u16(), headers.join(", "), members.strip_suffix("}}").unwrap())
}

fn cents(cents: i64) -> Amount {
    Amount::from_nanos(cents * 10_000_000).unwrap()
}

const PAUSE: Duration = Duration::from_millis(2_500);

async fn check(table: impl IntoIterator<Item = (RequestError, &str)>) {
    for (error, expected) in table {
        assert_eq!(told(error).await, expected);
    }
}

#[tokio::test]
async fn every_refusal_of_a_request_has_its_answer() {
    let rate = RateInfo { limit: 60, remaining: 0, reset: PAUSE };
    let invalid = |param: Option<&str>| {
        let message = "`n` must be a whole number.".to_owned();
        RequestError::Invalid(InvalidRequest { param: param.map(str::to_owned), message, position: None })
    };
    let model = || "m".to_owned();
    check([
        (
            invalid(None),
            r#"400 [] "`n` must be a whole number.","type":"invalid_request_error","param":null,"code":"invalid_request""#,
        ),
        (
            invalid(Some("n")),
            r#"400 [] "`n` must be a whole number.","type":"invalid_request_error","param":"n","code":"invalid_request""#,
        ),
        (
            RequestError::ModelNotFound { model: model() },
            r#"404 [] "There is no model `m`; GET /v1/models lists what is served.","type":"invalid_request_error","param":"model","code":"model_not_found""#,
        ),
        (
            RequestError::NotCapable { model: model(), needs: Capability::Chat },
            r#"400 [] "`m` cannot do chat; GET /v1/models shows what it can.","type":"invalid_request_error","param":"model","code":"invalid_request""#,
        ),
        (
            RequestError::OverModelLimit { param: "max_tokens", asked: 9, limit: 8 },
            r#"400 [] "`max_tokens` is 9; this model has at most 8.","type":"invalid_request_error","param":"max_tokens","code":"invalid_request""#,
        ),
        (
            RequestError::RateLimited(rate),
            r#"429 [retry-after-ms: 2500, retry-after: 3, x-ratelimit-limit-requests: 60, x-ratelimit-remaining-requests: 0, x-ratelimit-reset-requests: 2.5s] "This key may make 60 requests a minute.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            RequestError::BalanceTooLow { needed: cents(3), available: cents(1), affordable_output: None },
            r#"402 [x-should-retry: false] "The balance does not cover this request: it may cost up to 3 cents, and 1 cents are available. Add credit.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            RequestError::BalanceTooLow { needed: cents(3), available: cents(1), affordable_output: Some(5) },
            r#"402 [x-should-retry: false] "The balance does not cover this request: it may cost up to 3 cents, and 1 cents are available. Add credit, or set max_tokens to at most 5.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            RequestError::BudgetTooLow { needed: cents(3), available: cents(1) },
            r#"402 [x-should-retry: false] "The key's monthly budget does not cover this request: it may cost up to 3 cents, and 1 cents are left of the month. Raise the budget or lower max_tokens.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            RequestError::CallerGone,
            r#"401 [www-authenticate: Bearer] "This key does not work any more.","type":"authentication_error","param":null,"code":"unauthorized""#,
        ),
        (
            RequestError::IdempotencyMismatch,
            r#"409 [x-should-retry: false] "This Idempotency-Key was used for another request; use a new one.","type":"invalid_request_error","param":null,"code":"conflict""#,
        ),
        (
            RequestError::IdempotencyRunning,
            r#"409 [retry-after-ms: 1000, retry-after: 1] "The first request with this Idempotency-Key is still running.","type":"invalid_request_error","param":null,"code":"conflict""#,
        ),
        (
            RequestError::IdempotencyCrowded,
            r#"429 [retry-after-ms: 1000, retry-after: 1] "Many requests wait for the answer under this Idempotency-Key already; wait for theirs.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            RequestError::IdempotencyCut,
            r#"409 [x-should-retry: false] "The request with this Idempotency-Key was carried out and its answer cannot be given again.","type":"invalid_request_error","param":null,"code":"conflict""#,
        ),
    ])
    .await;
}

#[tokio::test]
async fn every_failure_of_a_request_has_its_answer() {
    let said = |code: Option<&str>| {
        let (param, code) = (code.and(Some("n".to_owned())), code.map(str::to_owned));
        let error = UpstreamError { message: "too long".to_owned(), param, code, kind: None, status: None };
        Box::new(error)
    };
    check([
        (
            RequestError::Busy { retry_after: PAUSE },
            r#"503 [retry-after-ms: 2500, retry-after: 3] "All model servers are busy; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            RequestError::OverShare { retry_after: PAUSE },
            r#"429 [retry-after-ms: 2500, retry-after: 3] "This account has as many requests under way as the server gives to one account now; wait for some of them to end.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            RequestError::NoUpstream { retry_after: PAUSE },
            r#"503 [retry-after-ms: 2500, retry-after: 3] "No model server can serve this model now.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            RequestError::Refused { status: 413, error: said(None) },
            r#"413 [] "too long","type":"invalid_request_error","param":null,"code":"invalid_request""#,
        ),
        (
            RequestError::Refused { status: 422, error: said(Some("odd")) },
            r#"422 [] "too long","type":"invalid_request_error","param":"n","code":"odd""#,
        ),
        (
            RequestError::UpstreamFailed,
            r#"502 [] "The model server failed.","type":"server_error","param":null,"code":"upstream_error""#,
        ),
        (
            RequestError::UpstreamTimeout,
            r#"504 [] "The model server did not answer in time.","type":"server_error","param":null,"code":"upstream_timeout""#,
        ),
        (
            RequestError::Stopped,
            r#"503 [retry-after-ms: 1000, retry-after: 1] "The request was stopped; try again.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            RequestError::Fenced,
            r#"503 [retry-after-ms: 1000, retry-after: 1] "This server cannot reach its ledger; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            RequestError::NotStorable,
            r#"500 [] "The server failed. Please report it with the x-request-id of this answer.","type":"server_error","param":null,"code":"internal""#,
        ),
        (
            RequestError::Store(StoreError::Corrupt { table: "t", column: "c" }),
            r#"500 [] "The server failed. Please report it with the x-request-id of this answer.","type":"server_error","param":null,"code":"internal""#,
        ),
        (
            RequestError::Store(StoreError::Unsure("lost".into())),
            r#"503 [retry-after-ms: 1000, retry-after: 1] "The database does not answer; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
    ])
    .await;
}
