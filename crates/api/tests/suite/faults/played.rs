//! Holds: what the fake model server does for each row of the table of faults, in the words of each kind of server.

use batchin_testkit::{
    Kind,
    sim::{Then, WireRequest, Written},
};
use serde_json::{Value, json};

use super::SECRET;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// More than an event may have.
const LONG_LINE: usize = 1024 * 1024 + 1;

/// A fault that the table has a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Refused,
    Tls,
    TlsSilent,
    Silent,
    BadRequest,
    Key,
    NoModel,
    Busy,
    BusyFor,
    Quota,
    Page500,
    Unavailable,
    ErrorFirst,
    Page200,
    PlainText,
    Nonsense,
    NonsenseMidway,
    ErrorMidway,
    QuotaMidway,
    Reset,
    Stall,
    Ended,
    TooShort,
    TooLong,
    LongLine,
}

/// The first cell of each row.
pub(super) const FAULTS: [(&str, Fault); 25] = [
    ("refuses the connection", Fault::Refused),
    ("fails the TLS handshake", Fault::Tls),
    ("never ends the TLS handshake", Fault::TlsSilent),
    ("says nothing", Fault::Silent),
    ("400, the request is at fault", Fault::BadRequest),
    ("401", Fault::Key),
    ("404 of the model", Fault::NoModel),
    ("429", Fault::Busy),
    ("429 with `retry-after`", Fault::BusyFor),
    ("429, our account there is used up", Fault::Quota),
    ("500 with a page of HTML", Fault::Page500),
    ("503", Fault::Unavailable),
    ("200 with an error in place of an answer", Fault::ErrorFirst),
    ("200 with a page of HTML", Fault::Page200),
    ("the answer as `text/plain`", Fault::PlainText),
    ("nonsense in place of an answer or of events", Fault::Nonsense),
    ("nonsense in the middle", Fault::NonsenseMidway),
    ("an error in the middle", Fault::ErrorMidway),
    ("an error about our account there in the middle", Fault::QuotaMidway),
    ("breaks off in the middle", Fault::Reset),
    ("stalls in the middle", Fault::Stall),
    ("ends in the middle", Fault::Ended),
    ("states a longer answer than it sends", Fault::TooShort),
    ("states a shorter answer than it sends", Fault::TooLong),
    ("a line of more than 1 MiB", Fault::LongLine),
];

/// What is right.
pub(super) fn well(request: &WireRequest) -> Written {
    let (content_type, body) = good(request);
    Written::answer(200, content_type, body)
}

/// What is wrong in this way, as a server of this kind has it.
pub(super) fn played(fault: Fault, kind: Kind, request: &WireRequest) -> Written {
    let refusal = |status: u16, why: &str| Written::answer(status, JSON, refused(kind, status, why).to_string());
    let (content_type, body) = good(request);
    let is_stream = content_type == EVENTS;
    // A chunk of a stream, or half of a whole answer.
    let part = if is_stream { body.find("\n\n").unwrap_or_default() + 2 } else { body.len() / 2 };
    let part = &body[..part];
    let midway = |more: &str| Written::answer(200, content_type, format!("{part}{more}"));
    match fault {
        Fault::Refused | Fault::Tls | Fault::TlsSilent => panic!("{fault:?} is no answer"),
        Fault::Silent => Written { bytes: Vec::new().into(), then: Then::Hang },
        Fault::BadRequest => refusal(400, "temperature must be below 2"),
        Fault::Key => refusal(401, &format!("Incorrect API key provided: {SECRET}")),
        Fault::NoModel => refusal(404, "The model `up` does not exist."),
        Fault::Busy => refusal(429, "Too many requests"),
        Fault::BusyFor => with_header(refusal(429, "Too many requests"), "retry-after: 1"),
        Fault::Quota => Written::answer(429, JSON, used_up().to_string()),
        Fault::Page500 => Written::answer(500, "text/html", format!("<html><body>{SECRET}</body></html>")),
        Fault::Unavailable => refusal(503, "The request queue is full."),
        Fault::ErrorFirst if is_stream => {
            let error = format!("data: {}\n\ndata: [DONE]\n\n", in_a_stream(kind, 500, SECRET));
            Written::answer(200, EVENTS, error)
        }
        Fault::ErrorFirst => Written::answer(200, JSON, in_a_stream(kind, 500, SECRET).to_string()),
        Fault::Page200 => Written::answer(200, "text/html", format!("<html><body>{SECRET}</body></html>")),
        Fault::PlainText => Written::answer(200, "text/plain; charset=utf-8", body),
        Fault::Nonsense => Written::answer(200, content_type, "data: {nonsense\n\n"),
        Fault::NonsenseMidway => midway("data: {nonsense\n\n"),
        Fault::ErrorMidway => midway(&format!("data: {}\n\ndata: [DONE]\n\n", in_a_stream(kind, 500, "out of memory"))),
        Fault::QuotaMidway => midway(&format!("data: {}\n\n", used_up())),
        Fault::Reset => cut(content_type, part, body.len(), Then::Reset),
        Fault::Stall => cut(content_type, part, body.len(), Then::Hang),
        Fault::Ended => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n{part}");
            Written { bytes: head.into(), then: Then::Close }
        }
        Fault::TooShort => cut(content_type, part, body.len(), Then::Close),
        Fault::TooLong => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}", part.len());
            Written { bytes: format!("{head}\r\n\r\n{body}").into(), then: Then::Next }
        }
        Fault::LongLine => midway(&format!("data: {}", "x".repeat(LONG_LINE))),
    }
}

/// An answer that states this length, and has this part of it.
fn cut(content_type: &str, part: &str, length: usize, then: Then) -> Written {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{part}");
    Written { bytes: head.into(), then }
}

fn with_header(written: Written, header: &str) -> Written {
    let text = String::from_utf8_lossy(&written.bytes).replacen("\r\n", &format!("\r\n{header}\r\n"), 1);
    Written { bytes: text.into(), then: written.then }
}

/// The answer of three tokens, in the form that is asked for.
fn good(request: &WireRequest) -> (&'static str, String) {
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    if asked["stream"] != true {
        let message = json!({ "role": "assistant", "content": "one two three" });
        let answer = json!({ "id": "x", "object": "chat.completion", "created": 1, "model": "up",
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }], "usage": usage });
        return (JSON, answer.to_string());
    }
    let chunk = |delta: Value, reason: Value| {
        json!({ "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
    };
    let chunks = [
        chunk(json!({ "role": "assistant", "content": "one two " }), Value::Null),
        chunk(json!({ "content": "three" }), json!("stop")),
        json!({ "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [], "usage": usage }),
    ];
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    (EVENTS, format!("{events}data: [DONE]\n\n"))
}

/// As OpenAI says that somebody has used up what they had.
fn used_up() -> Value {
    json!({ "error": { "message": SECRET, "type": "insufficient_quota", "param": null, "code": "insufficient_quota" } })
}

/// A refusal in this kind's words.
fn refused(kind: Kind, status: u16, why: &str) -> Value {
    if status == 401 && (kind == Kind::VLLM || kind == Kind::SGLANG) {
        // They say no more than that, and not what of.
        return json!({ "error": "Unauthorized" });
    }
    let (name, param) = match status {
        401 => ("authentication_error", Value::Null),
        404 => ("not_found_error", if kind == Kind::VLLM { json!("model") } else { Value::Null }),
        429 => ("rate_limit_error", Value::Null),
        503 => ("unavailable_error", Value::Null),
        _ => ("invalid_request_error", Value::Null),
    };
    if kind == Kind::SGLANG {
        // Flat, with the status as a text.
        return json!({ "object": "error", "message": why, "type": status.to_string(), "param": param, "code": status });
    }
    let error = if kind == Kind::VLLM {
        json!({ "message": why, "type": name, "param": param, "code": status })
    } else if kind == Kind::LLAMACPP {
        json!({ "code": status, "message": why, "type": name })
    } else if kind == Kind::OPENAI && status == 404 {
        json!({ "message": why, "type": "invalid_request_error", "param": null, "code": "model_not_found" })
    } else {
        json!({ "message": why, "type": name, "param": param, "code": null })
    };
    json!({ "error": error })
}

/// An error where an answer was to be: nested in all of them, with a status in some.
fn in_a_stream(kind: Kind, status: u16, why: &str) -> Value {
    let tells_status = [Kind::VLLM, Kind::SGLANG, Kind::LLAMACPP].contains(&kind);
    let code = if tells_status { json!(status) } else { Value::Null };
    json!({ "error": { "message": why, "type": "server_error", "param": null, "code": code } })
}
