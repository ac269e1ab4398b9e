//! Requests asked as chats, and their answers told on.

mod asking;
mod refusing;
mod same;
mod telling;

use serde_json::{Value, json};

use super::ask_as_chat;
use crate::{Code, Names, Retelling};

const NAMES: Names<'static> = Names { id: "resp_1", model: "org/model", created: 1_700_000_000, tier: None };

/// The chat that a request is asked as.
#[track_caller]
fn chat(request: &Value) -> Value {
    let asked = ask_as_chat(request.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&asked.body).unwrap()
}

/// How the answer to a request is told that has these members beside the usual ones.
#[track_caller]
fn retelling(members: &Value) -> Box<dyn Retelling> {
    let mut request = json!({"model": "m", "input": "hi"});
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    ask_as_chat(request.to_string().as_bytes()).unwrap().retelling
}

/// The events of a stream of these chunks: name and data.
fn events(retelling: &dyn Retelling, chunks: &[impl AsRef<[u8]>], end: End) -> Vec<(String, String)> {
    let mut telling = retelling.stream(NAMES);
    let mut sent = Vec::new();
    for chunk in chunks {
        sent.extend_from_slice(&telling.chunk(chunk.as_ref()));
    }
    sent.extend_from_slice(&match end {
        End::Done => telling.done(),
        End::Failed(code, message) => telling.failed(code, message),
    });
    assert!(telling.chunk(b"{}").is_empty() && telling.done().is_empty(), "it has ended");
    let sent = String::from_utf8(sent).unwrap();
    let frames = sent.strip_suffix("\n\n").unwrap().split("\n\n");
    let event = |frame: &str| {
        let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        assert!(!data.contains('\n'), "the data is one line: {data}");
        (name.to_owned(), data.to_owned())
    };
    frames.map(event).collect()
}

#[derive(Clone, Copy)]
enum End {
    Done,
    Failed(Code, &'static str),
}

/// What an event says beside its type and number, both of which are checked. Of a response its status and its output.
fn short(number: usize, (name, data): &(String, String)) -> String {
    let head = format!("{{\"type\":\"{name}\",\"sequence_number\":{number},");
    let rest = data.strip_prefix(&head).unwrap_or_else(|| panic!("{data} lacks {head}"));
    let name = name.strip_prefix("response.").unwrap();
    if !rest.starts_with("\"response\":") {
        return format!("{name} {}", rest.strip_suffix('}').unwrap());
    }
    let data: Value = serde_json::from_str(data).unwrap();
    let response = &data["response"];
    let mut said = vec![name.to_owned(), response["status"].as_str().unwrap().to_owned()];
    for member in ["error", "incomplete_details", "usage"] {
        if !response[member].is_null() {
            said.push(format!("{member} {}", response[member]));
        }
    }
    said.push(format!("{} items", response["output"].as_array().unwrap().len()));
    said.join(", ")
}

#[track_caller]
fn check_events(request: &Value, chunks: &[&str], end: End, expected: &[&str]) {
    let events = events(retelling(request).as_ref(), chunks, end);
    let told: Vec<_> = events.iter().enumerate().map(|(number, event)| short(number, event)).collect();
    assert_eq!(told, expected);
}
