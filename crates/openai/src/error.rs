//! Holds: the one error shape that clients parse, and the reading of every error shape that model servers send.
//!
//! A server's text reaches a client only after addresses and paths have been taken out of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::Value;

/// Longest error text passed on to a client, in characters. Validation errors of some servers repeat the whole input.
pub const MAX_ERROR_TEXT_CHARS: usize = 1000;

/// Most bytes of an error body that are looked at; what is longer is not a message.
const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;

/// Most faults of a validation list that are passed on.
const MAX_DETAILS: usize = 5;

/// `{"error": {"message", "type", "param", "code"}}`, the shape of every error to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// For a person: what is wrong and what to do.
    pub message: &'a str,
    /// The family, such as `invalid_request_error`.
    pub kind: &'a str,
    /// The field at fault.
    pub param: Option<&'a str>,
    /// For a program, such as `model_not_found`.
    pub code: Option<&'a str>,
}

impl Serialize for ErrorBody<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Inner<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Outer<'a> {
            error: Inner<'a>,
        }
        let error = Inner { message: self.message, r#type: self.kind, param: self.param, code: self.code };
        Outer { error }.serialize(serializer)
    }
}

impl ErrorBody<'_> {
    /// The body as JSON.
    pub fn to_json(&self) -> String {
        // Strings and nulls in a struct always serialise; the fixed text is what remains if that ever changes.
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{\"error\":{\"message\":\"error\"}}"))
    }
}

/// What a model server said went wrong, fit to be shown to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamError {
    /// Without addresses and paths, at most [`MAX_ERROR_TEXT_CHARS`] characters, never empty.
    pub message: String,
    /// The field at fault, when the server names one.
    pub param: Option<String>,
    /// The server's code when it is a word; status numbers are left out.
    pub code: Option<String>,
    /// The server's word for the family of error.
    pub kind: Option<String>,
    /// The HTTP status that a server gives in place of a code.
    pub status: Option<u16>,
}

impl UpstreamError {
    /// Replaces the server's own name of the model by the public one.
    pub fn rename_model(&mut self, upstream: &str, public: &str) {
        if upstream.len() > 1 && upstream != public {
            self.message = self.message.replace(upstream, public);
        }
    }

    /// This error in the shape for clients.
    pub fn to_body(&self) -> ErrorBody<'_> {
        ErrorBody {
            message: &self.message,
            kind: self.kind.as_deref().unwrap_or("upstream_error"),
            param: self.param.as_deref(),
            code: self.code.as_deref(),
        }
    }
}

/// Reads an error body of any known shape: nested (OpenAI, vLLM, llama.cpp, Ollama), flat (SGLang), a string
/// (stable-diffusion.cpp, vLLM's 401), FastAPI's `detail`, plain text, a proxy's HTML page, nothing at all.
pub fn upstream_error_message(status: u16, body: &[u8]) -> UpstreamError {
    let parsed = (body.len() <= MAX_ERROR_BODY_BYTES).then(|| serde_json::from_slice::<Value>(body).ok()).flatten();
    let mut error = match parsed {
        Some(value) => from_value(&value),
        None => UpstreamError { message: plain_text(body), param: None, code: None, kind: None, status: None },
    };
    error.message = sanitized(&error.message);
    if error.message.is_empty() {
        error.message = format!("the model server answered with status {status} and no explanation");
    }
    error
}

pub(crate) fn from_value(value: &Value) -> UpstreamError {
    let inner = match &value["error"] {
        nested @ Value::Object(_) => nested,
        _ => value,
    };
    let text = |key: &str| inner[key].as_str().filter(|text| !text.is_empty());
    let message = text("message")
        .map(str::to_owned)
        .or_else(|| detail(&inner["detail"]))
        .or_else(|| text("error").map(str::to_owned))
        .or_else(|| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    let word = |key: &str| {
        // SGLang repeats the status here, as a number or as a string of digits.
        let word = text(key).filter(|word| word.len() <= 100 && !word.bytes().all(|byte| byte.is_ascii_digit()));
        word.map(sanitized).filter(|word| !word.is_empty())
    };
    let number = &inner["code"];
    let number = number.as_u64().or_else(|| number.as_str()?.parse().ok());
    UpstreamError {
        message: sanitized(&message),
        param: word("param"),
        code: word("code"),
        kind: word("type"),
        status: number.and_then(|number| u16::try_from(number).ok()).filter(|status| (400..600).contains(status)),
    }
}

/// FastAPI's `detail`: a text, or a list of faults with their place. The input that it repeats is left out.
fn detail(detail: &Value) -> Option<String> {
    match detail {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => detail["message"].as_str().or(detail["msg"].as_str()).map(str::to_owned),
        Value::Array(faults) => {
            let lines = faults.iter().take(MAX_DETAILS).filter_map(|fault| {
                let message = fault["msg"].as_str()?;
                let place: Vec<String> = fault["loc"].as_array().into_iter().flatten().map(place_name).collect();
                Some(if place.is_empty() { message.to_owned() } else { format!("{}: {message}", place.join(".")) })
            });
            Some(lines.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

fn place_name(part: &Value) -> String {
    part.as_str().map_or_else(|| part.to_string(), str::to_owned)
}

/// The body as text, unless it is a page of HTML, binary or long.
fn plain_text(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if body.len() <= MAX_ERROR_BODY_BYTES && !text.trim_start().starts_with(['<', '{', '[']) => {
            text.trim().to_owned()
        }
        _ => String::new(),
    }
}

/// The text on one line, with addresses and paths taken out, and bounded.
fn sanitized(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(4 * MAX_ERROR_TEXT_CHARS));
    let mut chars = 0;
    for word in text.split_inclusive(is_separator) {
        let (body, end) = match word.chars().next_back().filter(|last| is_separator(*last)) {
            Some(last) => (&word[..word.len() - last.len_utf8()], Some(last)),
            None => (word, None),
        };
        let shown = masked(body);
        let end = end.map(|last| if last.is_control() || last.is_whitespace() { ' ' } else { last });
        for character in shown.chars().chain(end) {
            if chars == MAX_ERROR_TEXT_CHARS - 1 {
                out.push('…');
                return out;
            }
            out.push(character);
            chars += 1;
        }
    }
    out.trim().to_owned()
}

fn is_separator(character: char) -> bool {
    character.is_whitespace() || character.is_control() || "'\"`()<>,;=|{}".contains(character)
}

/// The word, or what it stands for when it tells where a server or a file is.
fn masked(word: &str) -> &str {
    let core = word.trim_end_matches(['.', ':', '!', '?']).trim_start_matches('@');
    let bare = core.trim_start_matches('[').trim_end_matches(']');
    if core.contains("://") || is_host(core) || is_host(bare) || bare.parse::<Ipv6Addr>().is_ok_and(|_| bare.len() > 2)
    {
        "[address]"
    } else if is_path(bare) {
        "[path]"
    } else {
        word
    }
}

/// An address with or without port: `10.0.0.5`, `gpu-1:8000`, `[::1]:80`, `a.b.example:443/v1`.
fn is_host(word: &str) -> bool {
    let authority = word.split('/').next().unwrap_or(word);
    if authority.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let is_port = (2..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:%".contains(&byte);
    // A clock time and a ratio have digits alone before the colon.
    let is_name = host.bytes().any(|byte| byte.is_ascii_alphabetic() || byte == b'.' || byte == b'[');
    is_port && !host.is_empty() && is_name && host.bytes().all(named)
}

fn is_path(word: &str) -> bool {
    let unix = word.strip_prefix('/').or_else(|| word.strip_prefix("~/"));
    let windows = word.get(1..3) == Some(":\\");
    windows || unix.is_some_and(|rest| rest.contains('/') || rest.contains('.') || word.starts_with('~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, message: &str, rest: [Option<&str>; 3]) {
        let error = upstream_error_message(status, body.as_bytes());
        let found = [error.param.as_deref(), error.code.as_deref(), error.kind.as_deref()];
        assert_eq!((error.message.as_str(), found), (message, rest));
    }

    #[test]
    fn every_shape_is_read() {
        check(
            404,
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
            "The model `x` does not exist.",
            [Some("model"), None, Some("NotFoundError")],
        );
        check(
            400,
            r#"{"object":"error","message":"too long","type":"BadRequestError","param":null,"code":400}"#,
            "too long",
            [None, None, Some("BadRequestError")],
        );
        check(401, r#"{"error":"Unauthorized"}"#, "Unauthorized", [None; 3]);
        check(500, r#"{"error":"server_error","message":"out of memory"}"#, "out of memory", [None; 3]);
        check(404, r#"{"detail":"Not Found"}"#, "Not Found", [None; 3]);
        check(
            422,
            r#"{"detail":[{"loc":["body","n",0],"msg":"field required","type":"missing","input":"secret"}]}"#,
            "body.n.0: field required",
            [None; 3],
        );
        check(
            400,
            r#"{"error":{"code":"context_length_exceeded","message":"m","type":"404","param":null}}"#,
            "m",
            [None, Some("context_length_exceeded"), None],
        );
        check(500, "Internal Server Error", "Internal Server Error", [None; 3]);
    }

    #[test]
    fn what_says_nothing_gets_a_plain_sentence() {
        for body in
            ["", "  ", "<html><h1>502</h1>nginx</html>", "{}", "null", "[1]", "{\"error\":{}}", "{broken", "\u{0}"]
        {
            let error = upstream_error_message(502, body.as_bytes());
            assert_eq!(error.message, "the model server answered with status 502 and no explanation", "{body}");
        }
        assert!(upstream_error_message(500, b"\xff\xfe").message.contains("500"));
    }

    #[test]
    fn addresses_and_paths_are_taken_out() {
        let check = |text: &str, expected: &str| assert_eq!(sanitized(text), expected);
        check("see http://10.0.0.5:8000/v1/models.", "see [address]");
        check("connect to 10.0.0.5 failed", "connect to [address] failed");
        check("connect to gpu-1.internal:8000: refused", "connect to [address] refused");
        check("at localhost:11434/api", "at [address]");
        check("at [::1]:80, or fe80::1", "at [address], or [address]");
        check("no file '/root/models/a.gguf' here", "no file '[path]' here");
        check("(/etc/passwd) ~/x C:\\models", "([path]) [path] [path]");
        check(
            "model Qwen/Qwen3-32B: ratio 3:20, at 10:30:05 n/a and/or 1.5",
            "model Qwen/Qwen3-32B: ratio 3:20, at 10:30:05 n/a and/or 1.5",
        );
        check("a\r\nb\tc\u{7}", "a  b c");
    }

    #[test]
    fn text_is_bounded() {
        let long = format!("{{\"error\":{{\"message\":\"{}\"}}}}", "é".repeat(5000));
        let error = upstream_error_message(400, long.as_bytes());
        assert_eq!(error.message.chars().count(), MAX_ERROR_TEXT_CHARS);
        let huge = format!("{{\"error\":{{\"message\":\"{}\"}}}}", "a".repeat(MAX_ERROR_BODY_BYTES));
        assert!(upstream_error_message(400, huge.as_bytes()).message.contains("status 400"));
    }

    #[test]
    fn shape_for_clients_is_exact() {
        let body = ErrorBody { message: "a \"b\"", kind: "invalid_request_error", param: None, code: Some("c") };
        let expected = r#"{"error":{"message":"a \"b\"","type":"invalid_request_error","param":null,"code":"c"}}"#;
        assert_eq!(body.to_json(), expected);
        assert_eq!(serde_json::to_string(&body).unwrap(), expected);
    }
}
