//! Holds: one choice of an answer that is being put together.

use std::{borrow::Cow, ops::ControlFlow};

use serde_json::value::RawValue;

use super::{
    ENTRY_BYTES,
    merge::{Members, Rule, close_object},
};
use crate::{
    calls::{Calls, Part},
    choice,
    ending::Ending,
    members::{each_item, each_member},
    said::Said,
    thought::{is_thought, other_name},
};

/// A choice as it lies in a chunk, with all that stands in it.
pub(super) type RawChoice<'a> = choice::RawChoice<'a, Vec<(Cow<'a, str>, &'a RawValue)>>;

/// One choice so far.
#[derive(Debug)]
pub(super) struct Choice {
    pub index: u64,
    /// The message, or `text` of a completion.
    said: Members,
    /// Which call of `calls` each part belongs to.
    numbers: Calls,
    calls: Vec<ToolCall>,
    function_call: Members,
    logprobs: Members,
    has_logprobs: bool,
    /// As JSON, in OpenAI's words.
    finish_reason: Option<&'static str>,
    rest: Members,
}

#[derive(Debug, Default)]
struct ToolCall {
    /// `id`, `type` and what else stands beside the call itself.
    head: Members,
    /// `function` or `custom`, each with its members.
    bodies: Vec<(Box<str>, Members)>,
}

impl Choice {
    pub fn new(index: u64) -> Self {
        Self {
            index,
            said: Members::default(),
            numbers: Calls::default(),
            calls: Vec::new(),
            function_call: Members::default(),
            logprobs: Members::default(),
            has_logprobs: false,
            finish_reason: None,
            rest: Members::default(),
        }
    }

    pub fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    pub fn end_by_length(&mut self) {
        self.finish_reason.get_or_insert("\"length\"");
    }

    /// Takes in what a chunk adds, and adds its bytes to `grown`. What it says; `None` when it fits nothing.
    pub fn take(&mut self, raw: &RawChoice<'_>, chat: bool, grown: &mut usize) -> Option<Said> {
        let mut said = Said::default();
        if chat && let Some(delta) = raw.said() {
            self.take_delta(delta.get(), &mut said, grown)?;
        }
        if !chat && let Some(text) = raw.text {
            said.member("content", text);
            *grown += self.said.take("text", text.get(), Rule::Join)?;
        }
        if raw.ends() {
            // Of one that failed nothing is told.
            let word = |json: &str| Ending::of(json).word(chat).unwrap_or("null");
            self.finish_reason = raw.finish_reason.map(|reason| word(reason.get()));
        }
        for (key, value) in &raw.beside {
            *grown += match (key.as_ref(), value.get()) {
                ("logprobs", "null") => 0,
                ("logprobs", json) => {
                    self.has_logprobs = true;
                    joined(&mut self.logprobs, json, |_| Rule::Join)?
                }
                (key, json) => self.rest.take(key, json, Rule::Last)?,
            };
        }
        Some(said)
    }

    /// Takes in more of a text of which there is some.
    pub fn grow(&mut self, key: &str, text: &str) -> Option<()> {
        self.said.grow(key, text)
    }

    fn take_delta(&mut self, delta: &str, said: &mut Said, grown: &mut usize) -> Option<()> {
        let mut fits = true;
        let listed = each_member(delta, |key, value| {
            said.member(&key, value);
            let json = value.get();
            let added = match key.as_ref() {
                "tool_calls" if json != "null" => self.take_calls(json, said),
                "function_call" if json != "null" => joined(&mut self.function_call, json, first_of_name),
                "tool_calls" | "function_call" => Some(0),
                "role" => self.said.take("role", json, Rule::First),
                // It will be told under both of its names.
                key if is_thought(key) => self.said.take(key, json, Rule::Join).map(|added| 2 * added),
                key => self.said.take(key, json, Rule::Join),
            };
            match added {
                Some(added) => *grown += added,
                None => fits = false,
            }
            ControlFlow::Continue(())
        });
        (listed.is_ok() && fits).then_some(())
    }

    fn take_calls(&mut self, json: &str, said: &mut Said) -> Option<usize> {
        let mut added = Some(0);
        each_item(json, |part: &RawValue| {
            let more = self.take_call(part.get(), said);
            added = added.zip(more).map(|(sum, more)| sum + more);
        })
        .ok()?;
        added
    }

    fn take_call(&mut self, json: &str, said: &mut Said) -> Option<usize> {
        let part = Part::read(json)?;
        let place = self.numbers.place(&part)?;
        said.add(place.text_bytes);
        let mut added = 0;
        if place.begins {
            added += ENTRY_BYTES + Calls::kept_bytes(&part);
            self.calls.push(ToolCall::default());
        }
        let call = self.calls.get_mut(place.at)?;
        let mut fits = true;
        each_member(json, |key, value| {
            let more = match key.as_ref() {
                "index" => Some(0),
                "function" | "custom" => call.take_body(&key, value.get()),
                "id" | "type" => call.head.take(&key, value.get(), Rule::First),
                _ => call.head.take(&key, value.get(), Rule::Last),
            };
            match more {
                Some(more) => added += more,
                None => fits = false,
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        fits.then_some(added)
    }

    /// The choice as in a whole answer.
    pub fn write(&self, chat: bool, out: &mut String) {
        out.push_str("{\"index\":");
        out.push_str(&self.index.to_string());
        if chat {
            self.write_message(out);
        } else if self.said.says("text") {
            self.said.write_one("text", out);
        } else {
            out.push_str(",\"text\":\"\"");
        }
        out.push_str(",\"logprobs\":");
        if self.has_logprobs {
            self.logprobs.write_object(out);
        } else {
            out.push_str("null");
        }
        out.push_str(",\"finish_reason\":");
        out.push_str(self.finish_reason.unwrap_or("null"));
        self.rest.write_all(&[], out);
        out.push('}');
    }

    fn write_message(&self, out: &mut String) {
        out.push_str(",\"message\":");
        let start = out.len();
        if self.said.says("role") {
            self.said.write_one("role", out);
        } else {
            out.push_str(",\"role\":\"assistant\"");
        }
        let calls = !self.calls.is_empty();
        let function_call = self.function_call.says("name");
        if self.said.says("content") {
            self.said.write_one("content", out);
        } else if calls || function_call || self.said.says("refusal") || !self.said.is("content", "\"\"") {
            // A stream opens with an empty text also where a whole answer has none.
            out.push_str(",\"content\":null");
        } else {
            out.push_str(",\"content\":\"\"");
        }
        self.write_rest(out);
        if calls {
            out.push_str(",\"tool_calls\":[");
            for (at, call) in self.calls.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                call.write(out);
            }
            out.push(']');
        }
        if function_call {
            out.push_str(",\"function_call\":");
            self.function_call.write_object(out);
        }
        close_object(start, out);
    }

    /// What else the message says, and reasoning also under the name that says nothing.
    fn write_rest(&self, out: &mut String) {
        let one_name = |name: &&str| {
            let is_silent = |other| !self.said.says(other);
            self.said.says(name) && other_name(name).is_some_and(is_silent)
        };
        let thought = ["reasoning", "reasoning_content"].into_iter().find(one_name);
        let second = thought.and_then(|name| Some((name, other_name(name)?)));
        self.said.write_all(&["role", "content", second.map_or("role", |(_, other)| other)], out);
        if let Some((name, other)) = second {
            self.said.write_as(name, other, out);
        }
    }
}

impl ToolCall {
    fn take_body(&mut self, key: &str, json: &str) -> Option<usize> {
        if json == "null" {
            return Some(0);
        }
        let at = self.bodies.iter().position(|(known, _)| &**known == key).unwrap_or_else(|| {
            self.bodies.push((key.into(), Members::default()));
            self.bodies.len() - 1
        });
        joined(&mut self.bodies[at].1, json, first_of_name)
    }

    fn write(&self, out: &mut String) {
        let start = out.len();
        self.head.write_all(&[], out);
        for (key, members) in &self.bodies {
            out.push_str(",\"");
            out.push_str(key);
            out.push_str("\":");
            members.write_object(out);
        }
        close_object(start, out);
    }
}

/// A call's name comes whole, its arguments in pieces.
fn first_of_name(key: &str) -> Rule {
    if key == "name" { Rule::First } else { Rule::Join }
}

/// Takes in the members of an object. The bytes that they added.
fn joined(members: &mut Members, json: &str, rule: impl Fn(&str) -> Rule) -> Option<usize> {
    let mut added = Some(0);
    let listed = each_member(json, |key, value| {
        let more = members.take(&key, value.get(), rule(&key));
        added = added.zip(more).map(|(sum, more)| sum + more);
        ControlFlow::Continue(())
    });
    added.filter(|_| listed.is_ok())
}
