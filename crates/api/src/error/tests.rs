//! Checks: what a client is told of every failure of a request, to the byte.

use batchin_domain::{Amount, Capability};
use batchin_gateway::{
    AdmitError, AnswerError, DispatchError, Fenced, KeyedError, NoRoom, PurseError, ReserveError, SettleError,
    TakeError,
};
use batchin_openai::{InvalidRequest, UpstreamError};
use batchin_store::StoreError;
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

async fn check(table: impl IntoIterator<Item = (AnswerError, &str)>) {
    for (error, expected) in table {
        assert_eq!(told(error).await, expected);
    }
}

#[tokio::test]
async fn every_refusal_of_a_request_has_its_answer() {
    let rate = RateInfo { limit: 60, remaining: 0, reset: PAUSE };
    let invalid = |param: Option<&str>| {
        let message = "`n` must be a whole number.".to_owned();
        AdmitError::Invalid(InvalidRequest { param: param.map(str::to_owned), message, position: None })
    };
    let model = || "m".to_owned();
    check([
        (
            invalid(None).into(),
            r#"400 [] "`n` must be a whole number.","type":"invalid_request_error","param":null,"code":"invalid_request""#,
        ),
        (
            invalid(Some("n")).into(),
            r#"400 [] "`n` must be a whole number.","type":"invalid_request_error","param":"n","code":"invalid_request""#,
        ),
        (
            AdmitError::ModelNotFound { model: model() }.into(),
            r#"404 [] "There is no model `m`; GET /v1/models lists what is served.","type":"invalid_request_error","param":"model","code":"model_not_found""#,
        ),
        (
            AdmitError::NotCapable { model: model(), needs: Capability::Chat }.into(),
            r#"400 [] "`m` cannot do chat; GET /v1/models shows what it can.","type":"invalid_request_error","param":"model","code":"invalid_request""#,
        ),
        (
            AdmitError::OverModelLimit { param: "max_tokens", asked: 9, limit: 8 }.into(),
            r#"400 [] "`max_tokens` is 9; this model has at most 8.","type":"invalid_request_error","param":"max_tokens","code":"invalid_request""#,
        ),
        (
            TakeError::RateLimited(rate).into(),
            r#"429 [retry-after-ms: 2500, retry-after: 3, x-ratelimit-limit-requests: 60, x-ratelimit-remaining-requests: 0, x-ratelimit-reset-requests: 2.5s] "This key may make 60 requests a minute.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            ReserveError::BalanceTooLow { needed: cents(3), available: cents(1), affordable_output: None }.into(),
            r#"402 [x-should-retry: false] "The balance does not cover this request: it may cost up to 3 cents, and 1 cents are available. Add credit.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            ReserveError::BalanceTooLow { needed: cents(3), available: cents(1), affordable_output: Some(5) }.into(),
            r#"402 [x-should-retry: false] "The balance does not cover this request: it may cost up to 3 cents, and 1 cents are available. Add credit, or set max_tokens to at most 5.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            ReserveError::BudgetTooLow { needed: cents(3), available: cents(1) }.into(),
            r#"402 [x-should-retry: false] "The key's monthly budget does not cover this request: it may cost up to 3 cents, and 1 cents are left of the month. Raise the budget or lower max_tokens.","type":"insufficient_quota","param":null,"code":"payment_required""#,
        ),
        (
            ReserveError::from(PurseError::CallerGone).into(),
            r#"401 [www-authenticate: Bearer] "This key does not work any more.","type":"authentication_error","param":null,"code":"unauthorized""#,
        ),
        (
            KeyedError::Mismatch.into(),
            r#"409 [x-should-retry: false] "This Idempotency-Key was used for another request; use a new one.","type":"invalid_request_error","param":null,"code":"conflict""#,
        ),
        (
            KeyedError::Running.into(),
            r#"409 [retry-after-ms: 1000, retry-after: 1] "The first request with this Idempotency-Key is still running.","type":"invalid_request_error","param":null,"code":"conflict""#,
        ),
        (
            KeyedError::Crowded.into(),
            r#"429 [retry-after-ms: 1000, retry-after: 1] "Many requests wait for the answer under this Idempotency-Key already; wait for theirs.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            KeyedError::Cut.into(),
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
            DispatchError::from(NoRoom::Busy { retry_after: PAUSE }).into(),
            r#"503 [retry-after-ms: 2500, retry-after: 3] "All model servers are busy; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            AnswerError::OverShare { retry_after: PAUSE },
            r#"429 [retry-after-ms: 2500, retry-after: 3] "This account has as many requests under way as the server gives to one account now; wait for some of them to end.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#,
        ),
        (
            DispatchError::from(NoRoom::NoUpstream { retry_after: PAUSE }).into(),
            r#"503 [retry-after-ms: 2500, retry-after: 3] "No model server can serve this model now.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            DispatchError::Refused { status: 413, error: said(None) }.into(),
            r#"413 [] "too long","type":"invalid_request_error","param":null,"code":"invalid_request""#,
        ),
        (
            DispatchError::Refused { status: 422, error: said(Some("odd")) }.into(),
            r#"422 [] "too long","type":"invalid_request_error","param":"n","code":"odd""#,
        ),
        (
            DispatchError::Failed.into(),
            r#"502 [] "The model server failed.","type":"server_error","param":null,"code":"upstream_error""#,
        ),
        (
            DispatchError::NotFree { retry_after: PAUSE }.into(),
            r#"429 [retry-after-ms: 2500, retry-after: 3] "The model servers had no room for a request of the tier flex; try again later, or without service_tier.","type":"rate_limit_error","param":null,"code":"resource_unavailable""#,
        ),
        (
            DispatchError::TimedOut.into(),
            r#"504 [] "The model server did not answer in time.","type":"server_error","param":null,"code":"upstream_timeout""#,
        ),
        (
            SettleError::Stopped.into(),
            r#"503 [retry-after-ms: 1000, retry-after: 1] "The request was stopped; try again.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            Fenced.into(),
            r#"503 [retry-after-ms: 1000, retry-after: 1] "This server cannot reach its ledger; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
        (
            SettleError::NotStorable.into(),
            r#"500 [] "The server failed. Please report it with the x-request-id of this answer.","type":"server_error","param":null,"code":"internal""#,
        ),
        (
            ReserveError::from(PurseError::Store(StoreError::Corrupt { table: "t", column: "c" })).into(),
            r#"500 [] "The server failed. Please report it with the x-request-id of this answer.","type":"server_error","param":null,"code":"internal""#,
        ),
        (
            ReserveError::from(PurseError::Store(StoreError::Unsure("lost".into()))).into(),
            r#"503 [retry-after-ms: 1000, retry-after: 1] "The database does not answer; try again in a moment.","type":"server_error","param":null,"code":"service_unavailable""#,
        ),
    ])
    .await;
}
