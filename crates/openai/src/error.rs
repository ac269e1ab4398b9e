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
            self.message = renamed(&self.message, upstream, public);
        }
    }

    /// Whether it speaks of this member of the request.
    pub fn names(&self, member: &str) -> bool {
        let said = |text: &str| text.split(|letter| !is_word(letter)).any(|word| word == member);
        said(&self.message) || self.param.as_deref().is_some_and(said)
    }

    /// Whether it says that the server knows nothing of what it names, rather than that a value is wrong.
    pub fn is_of_unknown_member(&self) -> bool {
        const UNKNOWN: [&str; 15] = [
            "unsupported parameter",
            "unsupported_parameter",
            "not supported",
            "not support",
            "unrecognized",
            "unrecognised",
            "unknown",
            "unexpected",
            "extra input",
            "extra field",
            "extra_forbidden",
            "not permitted",
            "additional propert",
            "not allowed",
            "no longer",
        ];
        const VALUE: [&str; 9] = [
            "too large",
            "too small",
            "too high",
            "at least",
            "at most",
            "less than",
            "greater than",
            "must be",
            "exceed",
        ];
        let mut said = self.message.to_ascii_lowercase();
        for word in [&self.code, &self.kind].into_iter().flatten() {
            said.push(' ');
            said.push_str(&word.to_ascii_lowercase());
        }
        UNKNOWN.iter().any(|phrase| said.contains(phrase)) && !VALUE.iter().any(|phrase| said.contains(phrase))
    }

    /// Whether it refuses the request as a 400 does, by the status that it names or else by its words.
    pub fn blames_request(&self) -> bool {
        const REFUSING: [&str; 5] = ["invalid", "bad_request", "badrequest", "validation", "unsupported"];
        let refuses = |word: &String| REFUSING.iter().any(|refusing| word.to_ascii_lowercase().contains(refusing));
        match self.status {
            Some(status) => matches!(status, 400 | 422),
            None => self.is_of_unknown_member() || [&self.code, &self.kind].into_iter().flatten().any(refuses),
        }
    }

    /// Speaks of a member by the name that the client used.
    pub fn rename_member(&mut self, sent: &str, clients: &str) {
        if sent != clients && self.names(sent) && !self.names(clients) {
            self.message = renamed(&self.message, sent, clients);
            self.param = self.param.take().map(|param| renamed(&param, sent, clients));
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

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The text with one name in place of another, wherever that is a word and not a part of one.
fn renamed(text: &str, name: &str, by: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (at, _) in text.match_indices(name) {
        let end = at + name.len();
        if !text[..at].ends_with(is_word) && !text[end..].starts_with(is_word) {
            out.push_str(&text[from..at]);
            out.push_str(by);
            from = end;
        }
    }
    out.push_str(&text[from..]);
    out
}

/// Reads an error body of any known shape: nested (OpenAI, vLLM, llama.cpp, Ollama), flat (SGLang), a string
/// (stable-diffusion.cpp, vLLM's 401), FastAPI's `detail`, also inside a `message` (Mistral), in a list (Google) or as JSON
/// in a text (proxies), plain text, a proxy's HTML page, nothing at all.
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
    // Google's servers put the error into a list of one.
    let value = value.as_array().and_then(|list| list.first()).filter(|first| first.is_object()).unwrap_or(value);
    let inner = match &value["error"] {
        nested @ Value::Object(_) => nested,
        _ => value,
    };
    let text = |key: &str| inner[key].as_str().filter(|text| !text.is_empty());
    let said = explanation(inner, 0).or_else(|| explanation(value, 0)).unwrap_or_default();
    // OpenRouter says who failed in its own words, and why in the words of that one.
    let cause = inner["metadata"]["raw"].as_str().and_then(within);
    let message = match cause {
        Some(cause) if said.is_empty() => cause,
        Some(cause) => format!("{said}: {cause}"),
        None => said,
    };
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

/// Where servers put their explanation, the plainest first. FastAPI's `input`, which repeats the request, is none of them.
const EXPLAINING: [&str; 11] = [
    "message",
    "msg",
    "detail",
    "details",
    "error",
    "errors",
    "error_message",
    "error_description",
    "reason",
    "title",
    "fault",
];

/// Deepest nesting of an explanation. Mistral's have three levels.
const MAX_EXPLANATION_DEPTH: u32 = 6;

/// The text in what a server says, however it is wrapped: in objects, lists of faults with their place, or JSON as text.
fn explanation(value: &Value, depth: u32) -> Option<String> {
    if depth > MAX_EXPLANATION_DEPTH {
        return None;
    }
    match value {
        Value::String(text) if text.trim().is_empty() => None,
        Value::String(text) => Some(unwrapped(text, depth).unwrap_or_else(|| text.clone())),
        Value::Array(faults) => {
            let lines = faults.iter().take(MAX_DETAILS).filter_map(|fault| explanation(fault, depth + 1));
            Some(lines.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
        }
        Value::Object(_) => {
            let said = EXPLAINING.iter().find_map(|key| explanation(&value[*key], depth + 1))?;
            let place: Vec<String> = value["loc"].as_array().into_iter().flatten().map(place_name).collect();
            Some(if place.is_empty() { said } else { format!("{}: {said}", place.join(".")) })
        }
        _ => None,
    }
}

/// The explanation in a text that is itself JSON, as proxies hand on what they got.
fn unwrapped(text: &str, depth: u32) -> Option<String> {
    let inner = text.trim();
    let parsed = inner.starts_with(['{', '[']).then(|| serde_json::from_str::<Value>(inner).ok()).flatten()?;
    explanation(&parsed, depth + 1)
}

fn within(text: &str) -> Option<String> {
    unwrapped(text, 0).or_else(|| Some(plain_text(text.as_bytes())).filter(|text| !text.is_empty()))
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
    if core.contains("://") || is_host(core) || is_host(bare) {
        "[address]"
    } else if is_path(bare) {
        "[path]"
    } else {
        word
    }
}

/// Ends of names that only a network of one's own has, which are hidden without a port too.
const PRIVATE_ENDS: [&str; 9] =
    [".internal", ".local", ".localdomain", ".lan", ".intranet", ".corp", ".svc", ".cluster.local", ".home.arpa"];

/// Ends of names that are files, as in `modeling.py:345`.
const FILE_ENDS: [&str; 22] = [
    "py", "pyx", "cpp", "cc", "c", "cu", "cuh", "h", "hpp", "rs", "go", "js", "ts", "java", "json", "jsonl", "yaml",
    "yml", "toml", "txt", "jinja", "gguf",
];

/// Ports on which model servers and their like listen unless told otherwise.
const USUAL_PORTS: [u16; 18] =
    [3000, 4000, 5000, 7860, 8000, 8001, 8002, 8008, 8010, 8080, 8081, 8088, 8443, 8888, 9000, 11434, 30000, 30001];

/// Words that stand before a number without being a host, as in `tokens:8000`.
const COUNTED: [&str; 24] = [
    "line", "column", "col", "char", "position", "row", "index", "offset", "byte", "bytes", "token", "tokens", "limit",
    "length", "context", "step", "size", "max", "min", "count", "seed", "id", "code", "error",
];

/// An address with or without port: `10.0.0.5`, `gpu-1:8000`, `[::1]:80`, `a.b.example:443/v1`. A place in a text
/// (`line:12`), a time, a ratio, a path of a member and a model's tag (`llama3:8b`) are none.
fn is_host(word: &str) -> bool {
    let authority = word.split(['/', '?']).next().unwrap_or(word);
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    if authority.split(':').any(|part| part.parse::<Ipv4Addr>().is_ok()) {
        return true;
    }
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(authority);
    let unzoned = bracketed.split('%').next().unwrap_or(bracketed);
    if unzoned.len() > 2 && unzoned.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    let (left, port) = authority.rsplit_once(':').map_or((authority, None), |(left, port)| (left, Some(port)));
    let host = left.rsplit(':').next().unwrap_or(left).to_ascii_lowercase();
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return false;
    }
    if PRIVATE_ENDS.iter().any(|end| host.ends_with(end) && host.len() > end.len()) {
        return true;
    }
    let is_plain = |port: &&str| (2..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = port.filter(is_plain).and_then(|port| port.parse::<u16>().ok()) else { return false };
    host == "localhost" || if host.contains('.') { is_domain(&host, port) } else { is_machine(&host, port) }
}

/// A name with dots and this port: a host, unless it is a file and a line, or a path of members and a number.
fn is_domain(host: &str, port: u16) -> bool {
    let end = host.rsplit('.').next().unwrap_or_default();
    let is_zone = end.len() >= 2 && end.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_zone && !FILE_ENDS.contains(&end) && (matches!(port, 80 | 443) || port > 999)
}

/// A name without dots and this port: `gpu-1:8123` is a host, and so is `vllm:8000`; `max_tokens:4096` is not.
fn is_machine(host: &str, port: u16) -> bool {
    // Members' names have underscores, which hosts' names must not have.
    let is_name = host.starts_with(|first: char| first.is_ascii_alphabetic()) && !host.contains('_');
    is_name && !COUNTED.contains(&host) && (USUAL_PORTS.contains(&port) || (host.contains('-') && port > 999))
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
    fn a_model_s_name_is_a_word_of_its_own() {
        let said = |message: &str, upstream: &str| {
            let body = serde_json::json!({ "error": { "message": message } }).to_string();
            let mut error = upstream_error_message(400, body.as_bytes());
            error.rename_model(upstream, "public");
            error.message
        };
        assert_eq!(
            said("unsupported: up, `up`:latest upup up", "up"),
            "unsupported: public, `public`:latest upup public"
        );
        assert_eq!(said("max_tokens is too much for max", "max"), "max_tokens is too much for public");
        assert_eq!(said("no Qwen/Qwen3 in models/Qwen/Qwen3.", "Qwen/Qwen3"), "no public in models/public.");
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
        let wrapped = [
            (r#"{"message":{"detail":[{"msg":"Extra inputs are not permitted"}]}}"#, "Extra inputs are not permitted"),
            (
                r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted","input":{"include_usage":true}}]}}"#,
                "body.stream_options: Extra inputs are not permitted",
            ),
            (r#"{"detail":{"message":"no"}}"#, "no"),
            (r#"{"detail":["a","b"]}"#, "a; b"),
            (r#"[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]"#, "no"),
            (r#"{"error":{"errors":[{"reason":"no"}]}}"#, "no"),
            (r#"{"errors":[{"message":"a"},{"message":"b"}]}"#, "a; b"),
            (r#"{"error":["no"]}"#, "no"),
            (r#"{"error":{"message":"{\"detail\":\"no\"}"}}"#, "no"),
            (r#"{"message":"","detail":"no"}"#, "no"),
            (r#"{"type":"about:blank","title":"Bad","detail":"no","status":400}"#, "no"),
            (
                r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"message\":\"no\"}"}}}"#,
                "Provider returned error: no",
            ),
            (r#"{"error":{"message":{}},"message":"no"}"#, "no"),
        ];
        for (body, message) in wrapped {
            assert_eq!(upstream_error_message(422, body.as_bytes()).message, message, "{body}");
        }
    }

    #[test]
    fn what_is_refused_is_known() {
        let read = |body: &str| upstream_error_message(400, body.as_bytes());
        let unknown = [
            (
                "max_tokens",
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
            ),
            (
                "max_completion_tokens",
                r#"{"error":{"message":"Unrecognized request argument supplied: max_completion_tokens"}}"#,
            ),
            (
                "stream_options",
                r#"{"message":{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}}"#,
            ),
            ("max_tokens", r#"{"error":{"message":"no","param":"max_tokens","code":"unknown_parameter"}}"#),
        ];
        for (name, body) in unknown {
            assert!(read(body).names(name) && read(body).is_of_unknown_member(), "{body}");
        }
        let valued = [
            "max_tokens is too large: 9000. This model supports at most 4096 completion tokens",
            "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length is 8 tokens",
            "max_tokens must be at least 16, got 5: values below are not supported",
        ];
        for text in valued {
            assert!(read(text).names("max_tokens") && !read(text).is_of_unknown_member(), "{text}");
        }
        assert!(!read("my_max_tokens is unknown").names("max_tokens"));
    }

    #[test]
    fn a_member_is_called_what_the_client_called_it() {
        let mut error = upstream_error_message(400, br#"{"error":{"message":"max_tokens is 0","param":"max_tokens"}}"#);
        error.rename_member("max_tokens", "max_completion_tokens");
        assert_eq!(
            (error.message.as_str(), error.param.as_deref()),
            ("max_completion_tokens is 0", Some("max_completion_tokens"))
        );
        let both = "'max_tokens' or 'max_completion_tokens' is too large";
        let mut error = upstream_error_message(400, both.as_bytes());
        error.rename_member("max_tokens", "max_completion_tokens");
        assert_eq!(error.message, both);
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
        for hidden in [
            "10.0.0.5:80",
            "host:10.0.0.5",
            "root@10.0.0.5:22",
            "vllm:8000",
            "connect:gpu-1:8123",
            "ollama:11434/v1",
            "gpu-node-3:9123",
            "a.b.example:443/v1",
            "api.example.com:8443",
            "gpu-1.internal",
            "vllm.default.svc:80",
            "[fe80::1%eth0]:8000",
            "2001:db8::17",
            "unix:///run/x.sock",
        ] {
            assert_eq!(sanitized(hidden), "[address]", "{hidden}");
        }
        for shown in [
            "line:12",
            "line:1234",
            "column:345",
            "1:2",
            "12:30",
            "10:30:05.123",
            "messages[0]:12",
            "messages[0].content:100",
            "body.messages:100",
            "max_tokens:4096",
            "tokens:8000",
            "seed:1234",
            "llama3:8b",
            "llama3:70",
            "qwen2.5:14b",
            "qwen2.5:14",
            "mixtral:8x7b",
            "gpt-oss:120b",
            "gpt-oss:20",
            "modeling.py:1345",
            "server.cpp:11434",
            "org/model:latest",
            "key:value",
            "std::vector",
            "v1.5:12",
        ] {
            assert_eq!(sanitized(shown), shown);
        }
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
