//! Holds: the events of an item's life, each told at the item's place in the output.

use super::{
    events::Events,
    item::{Item, Said},
};

/// What is added to a text.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// Items of a JSON list.
    pub(super) logprobs: &'a str,
}

/// The item begins.
pub(super) fn added(events: &mut Events, item: &Item, at: usize) {
    whole(events, "response.output_item.added", item, at);
}

/// The item's newest part begins.
pub(super) fn part_added(events: &mut Events, item: &Item, at: usize) {
    part(events, "response.content_part.added", item, at);
}

/// More of the item's newest part.
pub(super) fn grown(events: &mut Events, item: &mut Item, at: usize, piece: Piece<'_>) {
    if let Some(newest) = item.newest() {
        let event = events.event(newest.delta).about(item, at).part(newest.at).text("delta", piece.text);
        match newest.logprobs {
            Some(_) => event.list("logprobs", piece.logprobs).end(),
            None => event.end(),
        }
    }
    item.grow(piece.text, piece.logprobs);
}

/// The item's newest part ends.
pub(super) fn part_done(events: &mut Events, item: &Item, at: usize) {
    let Some(newest) = item.newest() else { return };
    let event = events.event(newest.done).about(item, at).part(newest.at).text(newest.member, newest.text);
    match newest.logprobs {
        Some(logprobs) => event.list("logprobs", logprobs).end(),
        None => event.end(),
    }
    part(events, "response.content_part.done", item, at);
}

/// A call begins. What came of its arguments before its name did follows.
pub(super) fn call_added(events: &mut Events, item: &mut Item, at: usize) {
    let Said::Call(call) = &mut item.said else { return };
    let early = std::mem::take(&mut call.arguments);
    added(events, item, at);
    call_grown(events, item, at, &early);
    if let Said::Call(call) = &mut item.said {
        call.arguments = early;
    }
}

/// More of a call's arguments. The input of a custom tool can be read only when all of it is there.
pub(super) fn call_grown(events: &mut Events, item: &Item, at: usize, more: &str) {
    if matches!(&item.said, Said::Call(call) if !call.is_custom()) && !more.is_empty() {
        events.event("response.function_call_arguments.delta").about(item, at).text("delta", more).end();
    }
}

/// The item ends, as its status says.
pub(super) fn done(events: &mut Events, item: &Item, at: usize) {
    match &item.said {
        Said::Reasoning(_) | Said::Message(_) => part_done(events, item, at),
        Said::Call(call) if call.is_custom() => {
            let input = call.input();
            if !input.is_empty() {
                events.event("response.custom_tool_call_input.delta").about(item, at).text("delta", &input).end();
            }
            events.event("response.custom_tool_call_input.done").about(item, at).text("input", &input).end();
        }
        Said::Call(call) => {
            let event = events.event("response.function_call_arguments.done").about(item, at);
            event.text("name", call.name()).text("arguments", &call.arguments).end();
        }
    }
    whole(events, "response.output_item.done", item, at);
}

fn whole(events: &mut Events, name: &str, item: &Item, at: usize) {
    events.event(name).count("output_index", at).with("item", |out| item.write(out)).end();
}

fn part(events: &mut Events, name: &str, item: &Item, at: usize) {
    let Some(newest) = item.newest() else { return };
    events.event(name).about(item, at).part(newest.at).with("part", |out| item.write_newest(out)).end();
}
