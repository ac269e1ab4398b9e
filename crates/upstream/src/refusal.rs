//! Holds: whom a refusal speaks of. Pure.
//!
//! A status alone does not say: a 404 may mean the model, the path, or a file that the request names.

use batchin_openai::UpstreamError;

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The request; any server would say the same.
    Request,
    /// The server, or what it has: another one may do it.
    Server,
    /// The server's load.
    Load,
    /// It may pass: a failure, a race.
    Passing,
}

/// Codes with which servers say that they don't have the model, whatever the status.
const NO_MODEL: [&str; 4] = ["model_not_found", "invalid_model", "deploymentnotfound", "model_not_available"];

/// How vLLM-Omni says with 400 that it has another model.
const MISMATCH: &str = "Model mismatch";

/// Codes with which hosted servers say that the operator's account is used up, whatever the status.
const NO_QUOTA: [&str; 4] =
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"];

/// What servers and proxies say of a path that they don't have, without a word more.
const NO_PATH: [&str; 7] = [
    "not found",
    "404 not found",
    "file not found",
    "page not found",
    "404 page not found",
    "resource not found",
    "no explanation",
];

/// What a message about a path has in it.
const ABOUT_PATH: [&str; 6] = ["invalid url", "unknown url", "no route", "route not found", "cannot post", "endpoint"];

/// What a message about a model has in it.
const ABOUT_MODEL: [&str; 4] = ["model", "lora", "adapter", "deployment"];

/// The status of an error that comes without one, in an answer that had a good one.
pub(crate) const UNSAID: u16 = 500;

/// Whom a refusal with this status speaks of.
pub(crate) fn about(status: u16, said: &UpstreamError) -> About {
    let code = said.code.as_deref().unwrap_or_default().to_ascii_lowercase();
    let kind = said.kind.as_deref().unwrap_or_default();
    if NO_MODEL.contains(&code.as_str()) || is_quota(&code) || is_quota(kind) || said.message.starts_with(MISMATCH) {
        return About::Server;
    }
    match status {
        429 | 503 => About::Load,
        // Our key, our account and its rights there; 402: our balance at a hosted server.
        401..=403 | 407 => About::Server,
        404 if is_about_request(said) => About::Request,
        // The way we ask, which no client chooses; 501: what it was not built or started for.
        300..=399 | 404 | 405 | 406 | 410 | 411 | 415 | 417 | 421 | 426 | 431 | 501 | 505 => About::Server,
        // A pause or a race over there.
        408 | 409 => About::Passing,
        400..=499 => About::Request,
        _ => About::Passing,
    }
}

/// Whether an error that comes in the middle of a stream speaks of the server, or of our key or account there: its words are
/// for the operator alone.
pub fn is_about_server(said: &UpstreamError) -> bool {
    about(said.status.unwrap_or(UNSAID), said) == About::Server
}

/// Whether it says that the operator's account there is used up.
pub(crate) fn is_quota(word: &str) -> bool {
    NO_QUOTA.contains(&word)
}

/// Whether a 404 names something else of the request than the model.
fn is_about_request(said: &UpstreamError) -> bool {
    match said.param.as_deref() {
        Some("model") => return false,
        Some(_) => return true,
        None => {}
    }
    let message = said.message.to_lowercase();
    let bare = message.trim_matches(|c: char| c.is_whitespace() || c == '.' || c == '!');
    let is_path = NO_PATH.contains(&bare) || bare.ends_with("no explanation") || bare.is_empty();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    !(is_path || has(&ABOUT_PATH) || has(&ABOUT_MODEL))
}

#[cfg(test)]
mod tests {
    use batchin_openai::upstream_error_message;

    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: About) {
        assert_eq!(about(status, &upstream_error_message(status, body.as_bytes())), expected, "{status} {body}");
    }

    #[test]
    fn a_404_is_read_to_its_end() {
        for server in [
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
            r#"{"error":{"message":"The model `gpt-9` does not exist","code":"model_not_found","param":null}}"#,
            r#"{"error":{"message":"model \"llama3\" not found, try pulling it first","type":"api_error","param":null}}"#,
            r#"{"object":"error","message":"LoRA adapter x is not loaded","type":"404","code":404}"#,
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
            r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#,
            r#"{"detail":"Not Found"}"#,
            r#"{"error":{"message":"Invalid URL (POST /v1/chat/completions)","type":"invalid_request_error"}}"#,
            "404 page not found",
            "<html><h1>404 Not Found</h1>nginx</html>",
            "Cannot POST /v1/chat/completions",
            "",
        ] {
            check(404, server, About::Server);
        }
        for request in [
            r#"{"error":{"message":"No such File object: file-123","type":"invalid_request_error","param":"id"}}"#,
            r#"{"error":{"message":"Previous response with id 'resp_1' not found.","param":"previous_response_id"}}"#,
            r#"{"error":{"message":"The image could not be fetched: 404","type":"invalid_request_error"}}"#,
        ] {
            check(404, request, About::Request);
        }
    }

    #[test]
    fn other_refusals_speak_of_whom_they_should() {
        let plain = r#"{"error":{"message":"why"}}"#;
        for status in [301, 401, 402, 403, 405, 407, 410, 415, 426, 501] {
            check(status, plain, About::Server);
        }
        for status in [400, 413, 422, 451] {
            check(status, plain, About::Request);
        }
        for status in [408, 409, 500, 502, 504, 529] {
            check(status, plain, About::Passing);
        }
        for status in [429, 503] {
            check(status, plain, About::Load);
        }
        let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        check(429, quota, About::Server);
        check(400, r#"{"error":{"message":"m","code":"model_not_found"}}"#, About::Server);
        check(400, r#"{"detail":"Model mismatch: request specifies 'a' but server is running 'b'."}"#, About::Server);
    }
}
