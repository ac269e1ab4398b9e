//! Holds: a workflow of ComfyUI's: a graph of nodes that the operator wrote, with marks where a request's own values go.
//!
//! Pure. Whoever asks reaches no node: a mark becomes one value, and what that has in it is not looked at again. Marks are
//! read in the inputs of nodes alone, and not in what leads from one node to another.

use std::{collections::BTreeSet, fmt};

use batchin_domain::{Frame, listed};
use serde_json::{Map, Value};

/// Longest text of a workflow, in bytes: one of a thousand nodes has less.
pub const MAX_WORKFLOW_BYTES: usize = 1024 * 1024;

listed! {
    /// What can be put into a workflow, by its name between double braces.
    pub enum Mark {
        /// What is to be seen.
        Prompt => "prompt",
        /// What is not; empty where nobody says.
        NegativePrompt => "negative_prompt",
        /// Where chance begins.
        Seed => "seed",
        /// Pixels from left to right.
        Width => "width",
        /// Pixels from top to bottom.
        Height => "height",
        /// Steps towards a picture.
        Steps => "steps",
        /// Pictures.
        Pictures => "n",
        /// Frames of a film.
        Frames => "frames",
        /// Frames a second.
        Fps => "fps",
        /// How long a film is to last.
        Seconds => "seconds",
    }
}

/// A workflow that has been checked.
#[derive(Clone, PartialEq)]
pub struct Workflow {
    nodes: Map<String, Value>,
    output: String,
    marks: BTreeSet<&'static str>,
}

/// What is wrong with a workflow. The texts are for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// It is too long.
    #[error("has more than {MAX_WORKFLOW_BYTES} bytes")]
    TooLarge,
    /// It is no JSON.
    #[error("is no JSON: line {line}, column {column}")]
    NotJson {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// It is what ComfyUI's editor saves, and not what its API takes.
    #[error("is in the format of ComfyUI's editor; export it there with \"Export (API)\"")]
    OfTheEditor,
    /// It is something else.
    #[error("is no graph of ComfyUI's API: an object of nodes, each with `class_type` and `inputs`")]
    NotAGraph,
    /// One of its nodes is none.
    #[error("node \"{node}\" has no `class_type`, or no `inputs`")]
    NotANode {
        /// Its id.
        node: String,
    },
    /// It has a mark that nothing is known for.
    #[error("node \"{node}\" has the mark {{{{{mark}}}}}, which is none of {}", marks())]
    UnknownMark {
        /// The node's id.
        node: String,
        /// What stands between the braces.
        mark: String,
    },
    /// Nothing of what is asked for would get into it.
    #[error("no input of a node has the mark {{{{prompt}}}}")]
    NoPrompt,
    /// The node that the result is taken from is not in it.
    #[error("has no node \"{node}\"")]
    NoOutput {
        /// Its id.
        node: String,
    },
}

/// What is put in place of marks.
#[derive(Clone, Copy)]
pub(crate) struct Filling<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) negative_prompt: &'a str,
    pub(crate) seed: u64,
    pub(crate) frame: Frame,
    pub(crate) steps: u32,
    pub(crate) pictures: u32,
    pub(crate) frames: u64,
    pub(crate) fps: u32,
    pub(crate) seconds: u32,
}

/// The names of all marks, for messages.
fn marks() -> String {
    Mark::ALL.map(Mark::name).join(", ")
}

impl Workflow {
    /// Reads and checks a workflow in the format of ComfyUI's API, of which one node has the result.
    pub fn parse(text: &str, output: &str) -> Result<Self, WorkflowError> {
        if text.len() > MAX_WORKFLOW_BYTES {
            return Err(WorkflowError::TooLarge);
        }
        let read = serde_json::from_str(text);
        let read: Value =
            read.map_err(|error| WorkflowError::NotJson { line: error.line(), column: error.column() })?;
        let Value::Object(nodes) = read else { return Err(WorkflowError::NotAGraph) };
        if nodes.get("nodes").is_some_and(Value::is_array) {
            return Err(WorkflowError::OfTheEditor);
        }
        if nodes.is_empty() {
            return Err(WorkflowError::NotAGraph);
        }
        let mut marks = BTreeSet::new();
        for (id, node) in &nodes {
            if !node["class_type"].is_string() || !node["inputs"].is_object() {
                return Err(WorkflowError::NotANode { node: id.clone() });
            }
            let mut unknown = None;
            each_text(&node["inputs"], &mut |text| {
                for piece in pieces(text) {
                    match piece {
                        Piece::Text(_) => {}
                        Piece::Mark(mark) => drop(marks.insert(mark.name())),
                        Piece::Unknown(mark) => unknown = Some(mark.to_owned()),
                    }
                }
            });
            if let Some(mark) = unknown {
                return Err(WorkflowError::UnknownMark { node: id.clone(), mark });
            }
        }
        if !marks.contains(Mark::Prompt.name()) {
            return Err(WorkflowError::NoPrompt);
        }
        if !nodes.contains_key(output) {
            return Err(WorkflowError::NoOutput { node: output.to_owned() });
        }
        Ok(Self { nodes, output: output.to_owned(), marks })
    }

    /// Whether it has a place for this.
    pub fn takes(&self, mark: Mark) -> bool {
        self.marks.contains(mark.name())
    }

    /// The node that has the result.
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    /// A node's id as it stands here, with the class of it; `None` where it has no such node. What a server names can so be
    /// told without a word of the server's own.
    pub(crate) fn node(&self, id: &str) -> Option<(&str, &str)> {
        let (id, node) = self.nodes.get_key_value(id)?;
        Some((id, node["class_type"].as_str().unwrap_or_default()))
    }

    /// The graph for one request.
    pub(crate) fn filled(&self, with: &Filling<'_>) -> Value {
        let mut nodes = self.nodes.clone();
        for node in nodes.values_mut() {
            fill(&mut node["inputs"], with);
        }
        Value::Object(nodes)
    }
}

impl Filling<'_> {
    fn of(&self, mark: Mark) -> Value {
        match mark {
            Mark::Prompt => self.prompt.into(),
            Mark::NegativePrompt => self.negative_prompt.into(),
            Mark::Seed => self.seed.into(),
            Mark::Width => self.frame.width.into(),
            Mark::Height => self.frame.height.into(),
            Mark::Steps => self.steps.into(),
            Mark::Pictures => self.pictures.into(),
            Mark::Frames => self.frames.into(),
            Mark::Fps => self.fps.into(),
            Mark::Seconds => self.seconds.into(),
        }
    }
}

/// Part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Mark(Mark),
    Unknown(&'a str),
}

/// The parts of a text, in their order. Braces that are no mark are text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | ' '))
    };
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = text[at..].find("{{") {
        let begins = at + found;
        let inside = &text[begins + 2..];
        let Some(word) = inside.find("}}").map(|ends| &inside[..ends]).filter(|word| is_word(word)) else {
            at = begins + 1;
            continue;
        };
        if from < begins {
            pieces.push(Piece::Text(&text[from..begins]));
        }
        pieces.push(Mark::from_name(word).map_or(Piece::Unknown(word), Piece::Mark));
        from = begins + word.len() + 4;
        at = from;
    }
    if from < text.len() {
        pieces.push(Piece::Text(&text[from..]));
    }
    pieces
}

/// Whether a value leads to another node: its id, and which of its results.
fn is_link(value: &[Value]) -> bool {
    matches!(value, [Value::String(_), Value::Number(_)])
}

fn each_text(value: &Value, see: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(values) if !is_link(values) => values.iter().for_each(|value| each_text(value, see)),
        Value::Object(members) => members.values().for_each(|value| each_text(value, see)),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn fill(value: &mut Value, with: &Filling<'_>) {
    match value {
        Value::String(text) => {
            let filled = match pieces(text)[..] {
                [Piece::Mark(mark)] => with.of(mark),
                ref pieces => pieces.iter().map(|piece| part(*piece, with)).collect::<String>().into(),
            };
            *value = filled;
        }
        Value::Array(values) if !is_link(values) => values.iter_mut().for_each(|value| fill(value, with)),
        Value::Object(members) => members.values_mut().for_each(|value| fill(value, with)),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn part(piece: Piece<'_>, with: &Filling<'_>) -> String {
    match piece {
        Piece::Text(text) | Piece::Unknown(text) => text.to_owned(),
        Piece::Mark(mark) => match with.of(mark) {
            Value::String(text) => text,
            number => number.to_string(),
        },
    }
}

/// A graph may have an operator's secrets in it.
impl fmt::Debug for Workflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workflow").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn filling(prompt: &str) -> Filling<'_> {
        let frame = Frame { width: 96, height: 64 };
        Filling {
            prompt,
            negative_prompt: "rain",
            seed: 7,
            frame,
            steps: 20,
            pictures: 2,
            frames: 97,
            fps: 24,
            seconds: 4,
        }
    }

    fn parsed(graph: &Value) -> Result<Workflow, WorkflowError> {
        Workflow::parse(&graph.to_string(), "9")
    }

    #[test]
    fn marks_become_values_and_are_not_looked_at_again() {
        let graph = json!({
            "3": { "class_type": "KSampler", "_meta": { "title": "{{anything}}" }, "inputs": {
                "seed": "{{seed}}", "steps": "{{steps}}", "model": ["{{seed}}", 0], "cfg": 1.5, "list": ["{{n}}", "{{fps}}", 1] } },
            "6": { "class_type": "CLIPTextEncode", "inputs": { "text": "{{prompt}}" } },
            "7": { "class_type": "CLIPTextEncode", "inputs": { "text": "{{prompt}}, {{{width}}}x{{height}} {{ {" } },
            "9": { "class_type": "SaveImage", "inputs": { "images": ["3", 0] } },
        });
        let workflow = parsed(&graph).unwrap();
        let prompt = "a \"kite\"\nof {{seed}} {{unknown}}";
        let filled = workflow.filled(&filling(prompt));
        assert_eq!(filled["3"]["inputs"]["seed"], 7);
        assert_eq!(filled["3"]["inputs"]["list"], json!([2, 24, 1]));
        for same in ["model", "cfg"] {
            assert_eq!(filled["3"]["inputs"][same], graph["3"]["inputs"][same]);
        }
        assert_eq!(filled["3"]["_meta"], graph["3"]["_meta"]);
        assert_eq!(filled["6"]["inputs"]["text"], prompt);
        assert_eq!(filled["7"]["inputs"]["text"], format!("{prompt}, {{96}}x64 {{{{ {{"));
        assert!(workflow.takes(Mark::Pictures) && workflow.takes(Mark::Width) && !workflow.takes(Mark::Frames));
        assert_eq!((workflow.node("3"), workflow.node("4")), (Some(("3", "KSampler")), None));
        assert!(!format!("{workflow:?}").contains("KSampler"));
    }

    #[test]
    fn what_cannot_be_asked_for_is_said() {
        let node = |inputs: Value| json!({ "9": { "class_type": "SaveImage", "inputs": inputs } });
        let said = |graph: &Value| parsed(graph).unwrap_err().to_string();
        for (graph, says) in [
            (json!([]), "is no graph"),
            (json!({}), "is no graph"),
            (json!({ "nodes": [], "links": [] }), "Export (API)"),
            (json!({ "prompt": {} }), "node \"prompt\" has no `class_type`"),
            (node(json!([])), "node \"9\" has no"),
            (node(json!({ "text": "prompt {prompt}" })), "has the mark {{prompt}}"),
            (
                json!({ "8": { "class_type": "{{prompt}}", "inputs": { "a": ["{{prompt}}", 1] } } }),
                "has the mark {{prompt}}",
            ),
            (
                node(json!({ "text": "{{prompt}} {{promt}}" })),
                "the mark {{promt}}, which is none of prompt, negative_prompt, seed",
            ),
            (json!({ "8": { "class_type": "A", "inputs": { "text": "{{prompt}}" } } }), "has no node \"9\""),
        ] {
            assert!(said(&graph).contains(says), "{graph}: {}", said(&graph));
        }
        assert_eq!(Workflow::parse("{\n\"9\":", "9"), Err(WorkflowError::NotJson { line: 2, column: 4 }));
        assert_eq!(Workflow::parse(&" ".repeat(MAX_WORKFLOW_BYTES + 1), "9"), Err(WorkflowError::TooLarge));
    }
}
