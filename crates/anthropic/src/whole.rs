//! Holds: a chat's whole answer, told as a message.

use batchin_openai::{HeardCall, HeardChoice, Names, hear};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    arguments::{CallIds, Object},
    ending::Ending,
    wire::{Block, Counts, Input, Message, write_json},
};

/// The message. Of several choices the first one, as a message is one answer. What says nothing is a message without
/// content, which clients take.
pub(crate) fn message(chat: &[u8], names: Names<'_>, stop_sequences: &[String]) -> Bytes {
    let heard = hear(chat);
    let choice = heard.choices.into_iter().find(|choice| choice.index == 0).unwrap_or_default();
    let (text, calls) = (text(&choice), calls(&choice, names.id));
    let ending = Ending {
        finish: choice.finish,
        stopped_by: choice.stopped_by.as_deref().map(String::from),
        refuses: !choice.refusal.is_empty(),
        calls: !calls.is_empty(),
    };
    let (stop_reason, stop_sequence) = ending.told(stop_sequences);
    let mut content = Vec::with_capacity(2 + calls.len());
    if !choice.reasoning.is_empty() {
        // Anthropic signs thoughts so that it knows them again; nobody asks for that here.
        content.push(Block::Thinking { thinking: &choice.reasoning, signature: "" });
    }
    if !text.is_empty() {
        content.push(Block::Text { text: &text });
    }
    content.extend(calls.iter().map(|(id, call)| Block::ToolUse {
        id,
        name: call.name.as_deref().unwrap_or_default(),
        input: input(&call.arguments),
    }));
    let message = Message {
        id: names.id,
        role: "assistant",
        model: names.model,
        content,
        stop_reason: Some(stop_reason),
        stop_sequence,
        usage: heard.usage.map(Counts::from).unwrap_or_default(),
    };
    let mut out = Vec::with_capacity(chat.len() + 256);
    write_json(&message, &mut out);
    out.into()
}

/// A message has no other place for a refusal.
fn text(choice: &HeardChoice<'_>) -> String {
    [choice.content.as_ref(), choice.refusal.as_ref()].concat()
}

fn calls<'a>(choice: &'a HeardChoice<'_>, answer: &str) -> Vec<(String, &'a HeardCall<'a>)> {
    let mut ids = CallIds::default();
    choice.calls.iter().map(|call| (ids.next(call.id.as_deref(), answer).to_owned(), call)).collect()
}

/// Arguments that are no object are told as an empty one: whoever runs the tool finds by its schema what is missing, where
/// an invented member might pass.
fn input(arguments: &str) -> Input<'_> {
    let object = Object::default().take(arguments);
    serde_json::from_str::<&RawValue>(object).map_or(Input::Empty {}, Input::Said)
}
