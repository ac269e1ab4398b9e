//! Holds: the reading of one chunk, and what has to change in its bytes.

use std::{borrow::Cow, ops::ControlFlow, ops::Range};

use serde_json::value::RawValue;

use super::{ChunkError, ChunkFacts};
use crate::{
    blank::says_something,
    calls::{Calls, Part},
    choice,
    ending::{Ending, failed_choice},
    error::upstream_error_message,
    members::{each_item, each_member, range_in},
    passing::Choices,
    said::Said,
    thought::{Thought, Twin},
    usage::parse_usage,
};

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One chunk among others.
    Chunk,
    /// A whole answer: its choices have ended, whatever it says.
    Whole,
}

/// A chunk that has been read.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) facts: ChunkFacts,
    pub(super) id: Option<Range<usize>>,
    pub(super) model: Option<Range<usize>>,
    pub(super) tier: Option<Range<usize>>,
    pub(super) object: Option<&'a RawValue>,
    pub(super) created: Option<&'a RawValue>,
    pub(super) choices: Option<&'a RawValue>,
    /// The member with the comma that goes with it, and its value.
    pub(super) usage: Option<(Range<usize>, &'a RawValue)>,
    /// Members in all.
    pub(super) members: usize,
    /// A choice ended by a failure.
    pub(super) has_failed: bool,
    /// What else takes the place of bytes, in no order.
    pub(super) edits: Vec<(Range<usize>, Cow<'static, str>)>,
    /// The only other change, where there is one: reasoning gets its second name.
    pub(super) twin: Option<Twin>,
}

impl Found<'_> {
    /// Of several twins, all but the last are edits like others.
    fn name_twice(&mut self, twin: Option<Twin>) {
        let earlier = twin.and_then(|twin| self.twin.replace(twin));
        self.edits.extend(earlier.map(Into::into));
    }
}

/// Reads a chunk of a stream whose choices so far are these.
pub(super) fn read<'a>(text: &'a str, form: Form, choices: &mut Choices) -> Result<Found<'a>, ChunkError> {
    let mut reader = Reader { text, form, known: choices, found: Found::default() };
    let mut fault = None;
    let (mut failed, mut flat) = (false, false);
    let open = text.find('{').map_or(0, |brace| brace + 1);
    let mut from = open;
    each_member(text, |key, value| {
        let at = range_in(text, value.get());
        let before = std::mem::replace(&mut from, at.end);
        let found = &mut reader.found;
        found.members += 1;
        match key.as_ref() {
            "id" => found.id = Some(at),
            "model" => found.model = Some(at),
            "service_tier" => found.tier = Some(at),
            "created" => found.created = Some(value),
            "object" => {
                flat |= value.get() == "\"error\"";
                found.object = Some(value);
            }
            "usage" => {
                found.facts.usage = parse_usage(value);
                found.facts.has_usage = value.get().starts_with('{');
                let member = with_comma(text, before == open, before..at.end);
                if let Some((_, earlier)) = found.usage.replace((member, value)) {
                    found.edits.push((range_in(text, earlier.get()), Cow::Borrowed("null")));
                }
            }
            "error" => failed |= says_something(value.get()),
            // SGLang's errors and FastAPI's have no member around them.
            "message" | "detail" => flat |= says_something(value.get()),
            "choices" => {
                found.choices = Some(value);
                if fault.is_none() {
                    fault = reader.choices(value).err();
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .map_err(|_| ChunkError::NotAChunk)?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut found = reader.found;
    let is_empty = !found.facts.has_choices;
    // A whole answer may tell of an error beside what it says; a stream that does has broken off.
    if (failed && (is_empty || form == Form::Chunk)) || (flat && is_empty && !found.facts.has_usage) {
        found.facts.error = Some(upstream_error_message(500, text.as_bytes()));
    } else if found.has_failed {
        found.facts.error = Some(failed_choice());
    }
    Ok(found)
}

/// The range of a member to be taken out: with the comma before it, or the one behind it where it is the first.
fn with_comma(text: &str, is_first: bool, member: Range<usize>) -> Range<usize> {
    let rest = text[member.end..].trim_start();
    if is_first && rest.starts_with(',') { member.start..text.len() - rest.len() + 1 } else { member }
}

struct Reader<'a, 's> {
    text: &'a str,
    form: Form,
    known: &'s mut Choices,
    found: Found<'a>,
}

/// Of which what is not named is passed on as it is.
type RawChoice<'a> = choice::RawChoice<'a, ()>;

impl<'a> Reader<'a, '_> {
    fn choices(&mut self, value: &'a RawValue) -> Result<(), ChunkError> {
        if value.get() == "null" {
            return Ok(());
        }
        let mut fault = None;
        let listed = each_item(value.get(), |choice: RawChoice<'a>| {
            self.found.facts.has_choices = true;
            if fault.is_none() {
                fault = self.choice(&choice).err();
            }
        });
        listed.map_err(|_| ChunkError::NotAChunk)?;
        fault.map_or(Ok(()), Err)
    }

    fn choice(&mut self, choice: &RawChoice<'a>) -> Result<(), ChunkError> {
        let mut said = Said::default();
        let message = choice.message.filter(|_| choice.delta.is_none());
        let calls = &mut self.known.at(choice.index).ok_or(ChunkError::TooMuch)?.calls;
        let mut kept = 0;
        if let Some(delta) = choice.said() {
            let (edits, mut thought) = (&mut self.found.edits, Thought::default());
            kept = read_delta((self.text, delta), (calls, edits), &mut said, &mut thought)?;
            self.found.name_twice(thought.twin(self.text));
        }
        self.known.keep(kept).ok_or(ChunkError::TooMuch)?;
        if let Some(message) = message {
            self.name_delta(message);
        }
        if let Some(text) = choice.text {
            said.member("content", text);
        }
        self.end(choice);
        let facts = &mut self.found.facts;
        facts.deltas = facts.deltas.saturating_add(u32::from(said.content));
        facts.text_bytes = facts.text_bytes.saturating_add(said.bytes());
        Ok(())
    }

    /// A stream's choice has a `delta` where a whole answer's has a `message`.
    fn name_delta(&mut self, message: &RawValue) {
        const NAME: &str = "\"message\"";
        let before = &self.text[..range_in(self.text, message.get()).start];
        let key = before.trim_end().strip_suffix(':').map(str::trim_end).filter(|key| key.ends_with(NAME));
        if let Some(key) = key {
            self.found.edits.push((key.len() - NAME.len()..key.len(), Cow::Borrowed("\"delta\"")));
        }
    }

    /// Notes the choice's end. A reason that is none becomes null, one by another name OpenAI's.
    fn end(&mut self, choice: &RawChoice<'a>) {
        let is_real = choice.ends();
        if is_real || self.form == Form::Whole {
            let is_new = self.known.end(choice.index);
            self.found.facts.ends = self.found.facts.ends.saturating_add(u32::from(is_new));
        }
        let edit = match (choice.finish_reason, self.form) {
            (Some(reason), _) if is_real => match Ending::of(reason.get()).word(choice.text.is_none()) {
                Some(word) if word == reason.get() => return,
                Some(word) => (range_in(self.text, reason.get()), Cow::Borrowed(word)),
                None => {
                    self.found.has_failed = true;
                    return;
                }
            },
            (Some(reason), Form::Whole) => (range_in(self.text, reason.get()), Cow::Borrowed("\"stop\"")),
            (Some(reason), Form::Chunk) if reason.get() != "null" => {
                (range_in(self.text, reason.get()), Cow::Borrowed("null"))
            }
            (None, Form::Whole) => {
                let Some(last) = choice.last else { return };
                let end = range_in(self.text, last.get()).end;
                (end..end, Cow::Borrowed(",\"finish_reason\":\"stop\""))
            }
            _ => return,
        };
        self.found.edits.push(edit);
    }
}

type Edits = Vec<(Range<usize>, Cow<'static, str>)>;

/// Reads a delta, numbers its tool calls, and returns how many bytes more are kept of them.
fn read_delta<'a>(
    (text, delta): (&str, &'a RawValue),
    (calls, edits): (&mut Calls, &mut Edits),
    said: &mut Said,
    thought: &mut Thought<'a>,
) -> Result<usize, ChunkError> {
    let (mut kept, mut fault) = (0, None);
    each_member(delta.get(), |key, value| {
        said.member(&key, value);
        thought.take(&key, value);
        if key == "tool_calls" && value.get().starts_with('[') {
            // It is valid JSON, and an array.
            let _listed = each_item(value.get(), |part: &RawValue| match read_call(text, part, calls, edits) {
                Ok((text_bytes, more)) => {
                    said.add(text_bytes);
                    kept += more;
                }
                Err(cause) => fault = Some(cause),
            });
        }
        ControlFlow::Continue(())
    })
    .map_err(|_| ChunkError::NotAChunk)?;
    fault.map_or(Ok(kept), Err)
}

/// Bytes of text in a part of a call, and those that are kept of it.
fn read_call(text: &str, value: &RawValue, calls: &mut Calls, edits: &mut Edits) -> Result<(u64, usize), ChunkError> {
    let part = Part::read(value.get()).ok_or(ChunkError::NotAChunk)?;
    let place = calls.place(&part).ok_or(ChunkError::TooMuch)?;
    let number = u64::try_from(place.at).ok();
    match part.index_at {
        Some(index) if part.index == number && index.get().bytes().all(|byte| byte.is_ascii_digit()) => {}
        Some(index) => edits.push((range_in(text, index.get()), Cow::Owned(place.at.to_string()))),
        None => {
            let inside = range_in(text, value.get()).start + 1;
            let comma = if part.is_filled { "," } else { "" };
            edits.push((inside..inside, Cow::Owned(format!("\"index\":{}{comma}", place.at))));
        }
    }
    let repeated = [(place.repeats_id, part.id), (place.repeats_name, part.name)];
    for (_, value) in repeated.into_iter().filter(|(repeats, _)| *repeats) {
        edits.extend(value.map(|value| (range_in(text, value.get()), Cow::Borrowed("null"))));
    }
    Ok((place.text_bytes, if place.begins { Calls::kept_bytes(&part) } else { 0 }))
}
