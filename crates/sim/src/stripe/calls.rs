//! Holds: calls of the fake Stripe over HTTP: who asks, what was asked before, what goes wrong.

use serde_json::{Value, json};

use super::{
    STRIPE_KEY,
    asked::{Asked, Refused},
    objects::State,
    script::{Kept, StripeFault},
};
use crate::wire::{Then, WireRequest, Written};

/// How long answers are kept by their key, in seconds.
const KEPT_FOR: i64 = 24 * 60 * 60;

/// Where objects are, and their kind.
const LISTED: [(&str, &str); 7] = [
    ("/v1/checkout/sessions", "checkout.session"),
    ("/v1/payment_intents", "payment_intent"),
    ("/v1/charges", "charge"),
    ("/v1/refunds", "refund"),
    ("/v1/disputes", "dispute"),
    ("/v1/customers", "customer"),
    ("/v1/events", "event"),
];

pub(super) fn answer(state: &mut State, request: &WireRequest) -> Written {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let given = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
    if given != STRIPE_KEY {
        let error = json!({ "message": "Invalid API Key provided", "type": "invalid_request_error" });
        return written(401, &json!({ "error": error }).to_string(), "");
    }
    let fault = take_fault(state, &request.method, path);
    match fault {
        Some(StripeFault::Error(status)) => return written(status, &failure(), "stripe-should-retry: true\r\n"),
        Some(StripeFault::Busy(seconds)) => {
            let error = json!({ "error": { "code": "rate_limit", "message": "Too many requests", "type": "invalid_request_error" } });
            return written(429, &error.to_string(), &format!("retry-after: {seconds}\r\n"));
        }
        Some(StripeFault::Body(body)) => return written(200, &body, ""),
        _ => {}
    }
    let asked = Asked::of(if request.method == "GET" { query.as_bytes() } else { &request.body });
    let (status, body) = match request.method.as_str() {
        "GET" => told(shown(state, path, &asked)),
        _ => once(state, request.header("idempotency-key"), path, &asked, fault.as_ref()),
    };
    let mut written = written(status, &body, "");
    match fault {
        Some(StripeFault::SilentAfterCommit) => written = Written { bytes: bytes::Bytes::new(), then: Then::Hang },
        Some(StripeFault::BrokenAfterCommit) => written = Written { bytes: bytes::Bytes::new(), then: Then::Reset },
        _ => {}
    }
    written
}

fn take_fault(state: &mut State, method: &str, path: &str) -> Option<StripeFault> {
    let at = state.faults.iter().position(|(of, within, _)| of == method && path.contains(within.as_str()))?;
    Some(state.faults.remove(at).2)
}

/// Does what is asked, or tells what became of it where the key was there before.
fn once(state: &mut State, key: &str, path: &str, asked: &Asked, fault: Option<&StripeFault>) -> (u16, String) {
    let now = state.now;
    state.kept.retain(|_, kept| now < kept.at + KEPT_FOR);
    let print = format!("{path} {}", asked.print());
    if let Some(kept) = state.kept.get(key) {
        if kept.print == print {
            return (kept.status, kept.body.clone());
        }
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than '{key}' if you meant to execute a different request."
        );
        return told(Err(Refused(400, json!({ "message": message, "type": "idempotency_error" }))));
    }
    state.idempotency_key = (!key.is_empty()).then(|| key.to_owned());
    let done = match path {
        "/v1/checkout/sessions" => state.open_session(asked),
        "/v1/payment_intents" => state.charge_saved(asked),
        _ => Err(Refused(
            404,
            json!({ "message": format!("Unrecognized request URL (POST: {path})."), "type": "invalid_request_error" }),
        )),
    };
    state.idempotency_key = None;
    // What was found wrong before anything was done is not kept.
    let is_kept = !key.is_empty() && !matches!(&done, Err(Refused(400 | 404, _)));
    let (status, body) = match fault {
        Some(StripeFault::ErrorAfterCommit) => (500, failure()),
        _ => told(done),
    };
    if is_kept {
        state.kept.insert(key.to_owned(), Kept { print, status, body: body.clone(), at: now });
    }
    (status, body)
}

fn shown(state: &State, path: &str, asked: &Asked) -> Result<Value, Refused> {
    for (root, kind) in LISTED {
        match path.strip_prefix(root) {
            Some("") => return state.list((kind, root), asked),
            Some(rest) => return state.one(kind, rest.trim_start_matches('/'), asked),
            None => {}
        }
    }
    Err(Refused(
        404,
        json!({ "message": format!("Unrecognized request URL (GET: {path})."), "type": "invalid_request_error" }),
    ))
}

fn told(done: Result<Value, Refused>) -> (u16, String) {
    match done {
        Ok(object) => (200, object.to_string()),
        Err(Refused(status, error)) => (status, json!({ "error": error }).to_string()),
    }
}

fn failure() -> String {
    json!({ "error": { "message": "Sorry, there was a problem on our side.", "type": "api_error" } }).to_string()
}

fn written(status: u16, body: &str, headers: &str) -> Written {
    let head = format!(
        "HTTP/1.1 {status} \r\ncontent-type: application/json\r\nrequest-id: req_fake\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    Written { bytes: [head.as_bytes(), body.as_bytes()].concat().into(), then: Then::Next }
}
