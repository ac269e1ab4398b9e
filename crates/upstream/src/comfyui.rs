//! Holds: ComfyUI's words: how a workflow is ordered, and what its answers say of it.
//!
//! Pure. Who sends it is `replica/workflows.rs`. What a server says of a fault is told to operators by its node in their own
//! workflow and by a word; the rest of it may repeat a prompt.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{adapters::Path, film::is_remote, workflow::Workflow};

pub(crate) const ORDER: Path = Path::AtRoot("/prompt");
/// What came of an order, by its id behind it.
pub(crate) const HISTORY: Path = Path::AtRoot("/history");
pub(crate) const QUEUE: Path = Path::AtRoot("/queue");
pub(crate) const INTERRUPT: Path = Path::AtRoot("/interrupt");
/// A file, by a query.
pub(crate) const VIEW: Path = Path::AtRoot("/view");

/// Longest word of a fault that is told.
const MAX_WORD_BYTES: usize = 80;
/// In which lists of a node files are told, those of films first: what saves a film may show a picture of it as well.
const LISTS: [&str; 4] = ["video", "videos", "gifs", "images"];

/// What became of an order that the server has in its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// These files of the node that has the result.
    Done(Vec<Output>),
    /// Nothing came of it.
    Failed(Fault),
    /// Somebody stopped it there.
    Interrupted,
}

/// A file on the server. Its names are the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    filename: String,
    subfolder: String,
    kind: String,
}

/// Where a server failed, in words that are the operator's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// As [`Workflow::node`] says.
    pub(crate) node: String,
    pub(crate) class: String,
    /// What went wrong, in a word.
    pub(crate) word: String,
}

/// The body that orders a workflow, under an id that servers of this year take over. As `client_id` nobody hears of it who is
/// connected there.
pub(crate) fn order(graph: Value, id: &str) -> Bytes {
    json!({ "prompt": graph, "client_id": id, "prompt_id": id }).to_string().into()
}

/// The id under which the server has taken an order.
pub(crate) fn ordered(body: &[u8]) -> Option<String> {
    let said: Value = serde_json::from_slice(body).ok()?;
    said["prompt_id"].as_str().filter(|id| is_remote(id)).map(str::to_owned)
}

/// Why a server does not take a workflow; `None` where it says nothing of nodes.
pub(crate) fn refused(workflow: &Workflow, body: &[u8]) -> Option<Fault> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let of_node = said["node_errors"].as_object().and_then(|nodes| nodes.iter().next());
    let Some((node, errors)) = of_node else {
        let kind = said["error"]["type"].as_str()?;
        // A node that the server does not have stands here alone.
        let node = said["error"]["extra_info"]["node_id"].as_str();
        return Some(fault(workflow, node, kind));
    };
    let first = &errors["errors"][0];
    let kind = first["type"].as_str().unwrap_or_default();
    let input = first["extra_info"]["input_name"].as_str().map(|name| format!("{kind}.{name}"));
    Some(fault(workflow, Some(node), input.as_deref().unwrap_or(kind)))
}

/// What became of an order; `None` while the server has nothing of it, or says nothing that can be read.
pub(crate) fn past(workflow: &Workflow, id: &str, body: &[u8]) -> Option<Past> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let entry = said.get(id)?;
    if entry["status"]["status_str"] == "error" {
        let messages = entry["status"]["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |name: &str| messages.iter().find(|message| message[0] == name).map(|message| &message[1]);
        if named("execution_interrupted").is_some() {
            return Some(Past::Interrupted);
        }
        let error = named("execution_error").unwrap_or(&Value::Null);
        let word = error["exception_type"].as_str().unwrap_or_default();
        return Some(Past::Failed(fault(workflow, error["node_id"].as_str(), word)));
    }
    let node = &entry["outputs"][workflow.output()];
    let files = LISTS.iter().filter_map(|list| node[list].as_array()).flatten();
    let files: Vec<_> = files.filter_map(Output::of).collect();
    if files.is_empty() {
        return Some(Past::Failed(fault(workflow, Some(workflow.output()), "no_output")));
    }
    Some(Past::Done(files))
}

/// Whether a server's queue has an order in it, and whether that runs; `None` where it says nothing that can be read.
pub(crate) fn queued(id: &str, body: &[u8]) -> Option<Queued> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let (running, waiting) = (said["queue_running"].as_array()?, said["queue_pending"].as_array()?);
    // An entry is a list, with the id behind its number.
    let has = |entries: &[Value]| entries.iter().any(|entry| entry[1] == id);
    Some(if has(running) {
        Queued::Runs
    } else if has(waiting) {
        Queued::Waits
    } else {
        Queued::Not
    })
}

/// How an order stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queued {
    Runs,
    Waits,
    Not,
}

impl Output {
    fn of(told: &Value) -> Option<Self> {
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        let file = Self { filename: text("filename"), subfolder: text("subfolder"), kind: text("type") };
        (!file.filename.is_empty()).then_some(file)
    }

    /// What asks for it.
    pub(crate) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        query.append_pair("filename", &self.filename).append_pair("subfolder", &self.subfolder);
        query.append_pair("type", &self.kind);
        query.finish()
    }
}

fn fault(workflow: &Workflow, node: Option<&str>, word: &str) -> Fault {
    let (node, class) = node.and_then(|node| workflow.node(node)).unwrap_or_default();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let word = if word.len() <= MAX_WORD_BYTES && word.bytes().all(is_word) { word } else { "" };
    Fault { node: node.to_owned(), class: class.to_owned(), word: word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow() -> Workflow {
        let graph = json!({
            "4": { "class_type": "CheckpointLoaderSimple", "inputs": {} },
            "6": { "class_type": "CLIPTextEncode", "inputs": { "text": "{{prompt}}" } },
            "9": { "class_type": "SaveImage", "inputs": {} },
        });
        Workflow::parse(&graph.to_string(), "9").unwrap()
    }

    fn at(node: &str, class: &str, word: &str) -> Fault {
        Fault { node: node.to_owned(), class: class.to_owned(), word: word.to_owned() }
    }

    fn become_of(entry: &Value) -> Option<Past> {
        past(&workflow(), "a", json!({ "a": entry }).to_string().as_bytes())
    }

    #[test]
    fn what_a_server_has_made_is_found_in_any_of_its_lists() {
        let file = |name: &str| json!({ "filename": name, "subfolder": "a b/&", "type": "output" });
        let done = |outputs: Value| become_of(&json!({ "outputs": outputs, "status": null }));
        let names = |past: Option<Past>| match past {
            Some(Past::Done(files)) => files.into_iter().map(|file| file.filename).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        for list in ["images", "gifs", "video", "videos"] {
            assert_eq!(names(done(json!({ "9": { list: [file("x"), {}, file("y")] } }))), ["x", "y"], "{list}");
        }
        assert_eq!(
            names(done(json!({ "9": { "images": [file("x.png")], "gifs": [file("y.mp4")] } }))),
            ["y.mp4", "x.png"]
        );
        let Some(Past::Done(files)) = done(json!({ "9": { "images": [file("../é.png")] } })) else { panic!("none") };
        assert_eq!(files[0].query(), "?filename=..%2F%C3%A9.png&subfolder=a+b%2F%26&type=output");
        for none in [json!({}), json!({ "9": { "text": ["a"] } }), json!({ "4": { "images": [file("x")] } })] {
            assert_eq!(done(none), Some(Past::Failed(at("9", "SaveImage", "no_output"))));
        }
        assert_eq!(past(&workflow(), "a", b"{}"), None);
        assert_eq!(past(&workflow(), "a", b"<html>"), None);
    }

    #[test]
    fn a_fault_is_told_without_a_word_of_a_prompt() {
        let failed = |name: &str, told: Value| {
            become_of(
                &json!({ "outputs": {}, "status": { "status_str": "error", "messages": [["execution_start", {}], [name, told]] } }),
            )
        };
        let told = json!({ "node_id": "6", "node_type": "X", "exception_type": "torch.OutOfMemoryError",
            "exception_message": "a kite", "current_inputs": { "text": ["a kite"] } });
        assert_eq!(
            failed("execution_error", told),
            Some(Past::Failed(at("6", "CLIPTextEncode", "torch.OutOfMemoryError")))
        );
        let told = json!({ "node_id": "a kite", "exception_type": "a kite" });
        assert_eq!(failed("execution_error", told), Some(Past::Failed(Fault::default())));
        assert_eq!(failed("execution_interrupted", json!({ "node_id": "6" })), Some(Past::Interrupted));
        let said = |body: Value| refused(&workflow(), body.to_string().as_bytes());
        let errors =
            json!([{ "type": "value_not_in_list", "details": "a kite", "extra_info": { "input_name": "ckpt_name" } }]);
        assert_eq!(
            said(json!({ "error": {}, "node_errors": { "4": { "errors": errors } } })),
            Some(at("4", "CheckpointLoaderSimple", "value_not_in_list.ckpt_name"))
        );
        let error = json!({ "type": "missing_node_type", "extra_info": { "node_id": "9" } });
        assert_eq!(said(json!({ "error": error, "node_errors": {} })), Some(at("9", "SaveImage", "missing_node_type")));
        assert_eq!(said(json!({ "error": "no prompt", "node_errors": [] })), None);
    }

    #[test]
    fn an_order_stands_in_the_queue_or_does_not() {
        let queue =
            json!({ "queue_running": [[0, "a", {}, {}, []]], "queue_pending": [[1, "b", {}, {}, []]] }).to_string();
        let stands = |id| queued(id, queue.as_bytes());
        assert_eq!([stands("a"), stands("b"), stands("c")], [Queued::Runs, Queued::Waits, Queued::Not].map(Some));
        assert_eq!(queued("a", b"{}"), None);
        assert_eq!(ordered(br#"{"prompt_id":"0-a","node_errors":{}}"#).as_deref(), Some("0-a"));
        assert_eq!((ordered(br#"{"prompt_id":"../x"}"#), ordered(b"{}")), (None, None));
    }
}
