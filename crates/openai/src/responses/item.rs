//! Holds: the items of a response's output, as far as they have been said.

use super::{
    called::{Called, CalledNames, INPUT},
    json::push_text,
    logprobs,
    reading::members_of,
};
use crate::{HeardCall, HeardChoice, heard::text_of};

/// How far an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

/// An item of the output.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) said: Said,
}

/// What an item says.
#[derive(Debug)]
pub(super) enum Said {
    Reasoning(String),
    Message(Vec<Part>),
    Call(Call),
}

/// A part of a message.
#[derive(Debug)]
pub(super) enum Part {
    /// The log probabilities are items of a JSON list.
    Text {
        text: String,
        logprobs: String,
    },
    Refusal(String),
}

/// The part in which something was said last: of a message its last one, of reasoning all of it.
pub(super) struct Newest<'a> {
    /// Its number.
    pub(super) at: usize,
    /// The event of a piece of it.
    pub(super) delta: &'static str,
    /// The event of its end.
    pub(super) done: &'static str,
    /// The member of that event which holds its text.
    pub(super) member: &'static str,
    pub(super) text: &'a str,
    /// Of parts that can have them.
    pub(super) logprobs: Option<&'a str>,
}

/// A call of a tool.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Its number in the chat.
    pub(super) index: u64,
    /// Empty until it is known.
    pub(super) call_id: String,
    /// Empty until it is known.
    pub(super) name_in_chat: String,
    /// What the request calls it, from when it is told.
    pub(super) called: Option<Called>,
    pub(super) arguments: String,
    /// The chat had it as a custom tool: its arguments are its input.
    is_plain: bool,
}

/// What all ids within one answer hold.
fn id_root(response_id: &str) -> &str {
    response_id.split_once('_').map_or(response_id, |(_, root)| root)
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The items that a whole answer's choice is told in.
pub(super) fn items_of(choice: &HeardChoice<'_>, response_id: &str, names: &CalledNames, logprobs: bool) -> Vec<Item> {
    let mut said = Vec::new();
    if !choice.reasoning.is_empty() {
        said.push(Said::Reasoning(choice.reasoning.clone().into_owned()));
    }
    let mut parts = Vec::new();
    if !choice.content.is_empty() {
        let mut text = Part::text();
        text.grow(&choice.content, &logprobs_of(choice, logprobs));
        parts.push(text);
    }
    if !choice.refusal.is_empty() {
        parts.push(Part::Refusal(choice.refusal.clone().into_owned()));
    }
    if !parts.is_empty() {
        said.push(Said::Message(parts));
    }
    for heard in choice.calls.iter().filter(|heard| says_something(heard)) {
        let mut call = Call::new(heard.index);
        call.take(heard);
        said.push(Said::Call(call));
    }
    let item = |(at, said)| {
        let mut item = Item { id: String::new(), status: Status::Completed, said };
        item.settle(response_id, at, names);
        item
    };
    said.into_iter().enumerate().map(item).collect()
}

/// The log probabilities of a choice's text, where they are to be told.
pub(super) fn logprobs_of(choice: &HeardChoice<'_>, are_told: bool) -> String {
    choice.logprobs.filter(|_| are_told).map(logprobs::told).unwrap_or_default()
}

/// Whether a part of a call has anything in it.
pub(super) fn says_something(heard: &HeardCall<'_>) -> bool {
    heard.id.is_some() || heard.name.is_some() || !heard.arguments.is_empty()
}

impl Item {
    /// At this place in the output.
    pub(super) fn new(said: Said, response_id: &str, at: usize) -> Self {
        Self { id: said.id(response_id, at), status: Status::InProgress, said }
    }

    /// What is known now of the call that this is tells what it is.
    pub(super) fn settle(&mut self, response_id: &str, at: usize, names: &CalledNames) {
        if let Said::Call(call) = &mut self.said {
            call.settle(id_root(response_id), at, names);
        }
        self.id = self.said.id(response_id, at);
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        push_text(out, &self.id);
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(self.said.kind().as_bytes());
        out.extend_from_slice(b"\",\"status\":\"");
        out.extend_from_slice(self.status.name().as_bytes());
        out.push(b'"');
        match &self.said {
            Said::Reasoning(text) => {
                out.extend_from_slice(b",\"summary\":[],\"content\":[");
                // When it begins it has no part yet.
                if !text.is_empty() {
                    self.write_newest(out);
                }
                out.push(b']');
            }
            Said::Message(parts) => {
                out.extend_from_slice(b",\"role\":\"assistant\",\"content\":[");
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    part.write(out);
                }
                out.push(b']');
            }
            Said::Call(call) => call.write(out),
        }
        out.push(b'}');
    }

    /// Calls have no parts.
    pub(super) fn newest(&self) -> Option<Newest<'_>> {
        match &self.said {
            Said::Reasoning(text) => Some(Newest {
                at: 0,
                delta: "response.reasoning_text.delta",
                done: "response.reasoning_text.done",
                member: "text",
                text,
                logprobs: None,
            }),
            Said::Message(parts) => parts.last().map(|part| Newest { at: parts.len() - 1, ..part.newest() }),
            Said::Call(_) => None,
        }
    }

    /// More of the newest part.
    pub(super) fn grow(&mut self, more: &str, more_logprobs: &str) {
        match &mut self.said {
            Said::Reasoning(text) => text.push_str(more),
            Said::Message(parts) => {
                if let Some(part) = parts.last_mut() {
                    part.grow(more, more_logprobs);
                }
            }
            Said::Call(_) => {}
        }
    }

    /// The newest part alone.
    pub(super) fn write_newest(&self, out: &mut Vec<u8>) {
        match &self.said {
            Said::Reasoning(text) => {
                out.extend_from_slice(b"{\"type\":\"reasoning_text\",\"text\":");
                push_text(out, text);
                out.push(b'}');
            }
            Said::Message(parts) => parts.iter().last().into_iter().for_each(|part| part.write(out)),
            Said::Call(_) => {}
        }
    }
}

impl Said {
    fn id(&self, response_id: &str, at: usize) -> String {
        let kind = match self {
            Self::Reasoning(_) => "rs",
            Self::Message(_) => "msg",
            Self::Call(call) if call.is_custom() => "ctc",
            Self::Call(_) => "fc",
        };
        format!("{kind}_{}_{at}", id_root(response_id))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Reasoning(_) => "reasoning",
            Self::Message(_) => "message",
            Self::Call(call) if call.is_custom() => "custom_tool_call",
            Self::Call(_) => "function_call",
        }
    }
}

impl Part {
    /// An empty text.
    pub(super) fn text() -> Self {
        Self::Text { text: String::new(), logprobs: String::new() }
    }

    fn newest(&self) -> Newest<'_> {
        match self {
            Self::Text { text, logprobs } => Newest {
                at: 0,
                delta: "response.output_text.delta",
                done: "response.output_text.done",
                member: "text",
                text,
                logprobs: Some(logprobs),
            },
            Self::Refusal(text) => Newest {
                at: 0,
                delta: "response.refusal.delta",
                done: "response.refusal.done",
                member: "refusal",
                text,
                logprobs: None,
            },
        }
    }

    fn grow(&mut self, more: &str, more_logprobs: &str) {
        match self {
            Self::Refusal(text) => text.push_str(more),
            Self::Text { text, logprobs } => {
                text.push_str(more);
                if !logprobs.is_empty() && !more_logprobs.is_empty() {
                    logprobs.push(',');
                }
                logprobs.push_str(more_logprobs);
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text { text, logprobs } => {
                out.extend_from_slice(b"{\"type\":\"output_text\",\"text\":");
                push_text(out, text);
                out.extend_from_slice(b",\"annotations\":[],\"logprobs\":[");
                out.extend_from_slice(logprobs.as_bytes());
                out.extend_from_slice(b"]}");
            }
            Self::Refusal(text) => {
                out.extend_from_slice(b"{\"type\":\"refusal\",\"refusal\":");
                push_text(out, text);
                out.push(b'}');
            }
        }
    }
}

impl Call {
    /// Of which nothing is known.
    pub(super) fn new(index: u64) -> Self {
        Self { index, ..Self::default() }
    }

    /// Takes in a part of it. What was said once stays.
    pub(super) fn take(&mut self, heard: &HeardCall<'_>) {
        for (known, said) in [(&mut self.call_id, &heard.id), (&mut self.name_in_chat, &heard.name)] {
            if let Some(said) = said.as_deref().filter(|_| known.is_empty()) {
                known.push_str(said);
            }
        }
        self.is_plain |= heard.is_custom;
        self.arguments.push_str(&heard.arguments);
    }

    fn settle(&mut self, id_root: &str, at: usize, names: &CalledNames) {
        if self.call_id.is_empty() {
            self.call_id = format!("call_{id_root}_{at}");
        }
        let called = names.find(&self.name_in_chat);
        self.called = Some(Called { is_custom: called.is_custom || self.is_plain, ..called });
    }

    /// Whether it calls a custom tool.
    pub(super) fn is_custom(&self) -> bool {
        self.called.as_ref().is_some_and(|called| called.is_custom)
    }

    /// What is called, by its own name.
    pub(super) fn name(&self) -> &str {
        self.called.as_ref().map_or(&self.name_in_chat, |called| &called.name)
    }

    /// The input of a custom tool. Arguments that have none are the input themselves, such as those that were cut off.
    pub(super) fn input(&self) -> String {
        if self.is_plain {
            return self.arguments.clone();
        }
        let input = members_of(&self.arguments, [INPUT]).and_then(|[input]| input);
        let text = input.map(|input| text_of(input.get()).unwrap_or(input.get().into()));
        text.map_or_else(|| self.arguments.clone(), |text| text.into_owned())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"call_id\":");
        push_text(out, &self.call_id);
        out.extend_from_slice(b",\"name\":");
        push_text(out, self.name());
        if let Some(namespace) = self.called.as_ref().and_then(|called| called.namespace.as_deref()) {
            out.extend_from_slice(b",\"namespace\":");
            push_text(out, namespace);
        }
        if self.is_custom() {
            out.extend_from_slice(b",\"input\":");
            push_text(out, &self.input());
        } else {
            out.extend_from_slice(b",\"arguments\":");
            push_text(out, &self.arguments);
        }
    }
}
