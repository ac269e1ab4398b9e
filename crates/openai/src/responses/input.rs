//! Holds: the items of `input`, asked as the messages of a chat.
//!
//! What one answer of the model was told in several items becomes one message again: its reasoning, its text, its calls.

use serde_json::value::RawValue;

use super::{
    called::{INPUT, name_in_chat},
    content::{self, Part},
    fault::Fault,
    json::{Object, push_text},
    reading::{inner, is_text, members_of, needed_name, needed_text, text, try_each},
};

const INPUT_SHAPE: &str = "must be a non-empty string or a non-empty array of items";

const KINDS: &str = "must be one of \"message\", \"function_call\", \"function_call_output\", \"custom_tool_call\", \
                     \"custom_tool_call_output\" and \"reasoning\"";

/// The messages of a chat, in JSON.
pub(super) fn messages(instructions: Option<&RawValue>, input: Option<&RawValue>) -> Result<Vec<u8>, Fault> {
    let mut messages = Messages::default();
    if let Some(instructions) = text("instructions", instructions)?.filter(|text| !inner(text).is_empty()) {
        messages.system = Some(inner(instructions).to_owned());
    }
    let input = input.ok_or_else(|| Fault::at("input", "is required: give it as a string or an array of items"))?;
    let mut is_empty = true;
    if is_text(input) {
        is_empty = inner(input).is_empty();
        messages.add("user", input.get().as_bytes());
    } else {
        let read = try_each(input, INPUT_SHAPE, |_, item| {
            is_empty = false;
            messages.take(item)
        });
        read.map_err(|fault| fault.within("input"))?;
    }
    messages.end_turn();
    messages.begin();
    if is_empty {
        return Err(Fault::at("input", INPUT_SHAPE));
    }
    if messages.out.is_empty() {
        let must = "has nothing but reasoning that no message follows, or that is encrypted; add a message";
        return Err(Fault::at("input", must));
    }
    messages.out.push(b']');
    Ok(messages.out)
}

#[derive(Default)]
struct Messages {
    /// What stands before the conversation, as it lies between the quotes of a JSON string: one message, as the templates of
    /// many models take no other.
    system: Option<String>,
    /// The list, without its end.
    out: Vec<u8>,
    turn: Turn,
    /// Reasoning that belongs to what the assistant says next.
    thought: String,
}

/// What the assistant says in one message. Texts are as they lie between the quotes of a JSON string.
#[derive(Default)]
struct Turn {
    reasoning: String,
    content: Option<String>,
    /// The list, without its end.
    calls: Vec<u8>,
}

impl Messages {
    fn add(&mut self, role: &str, content: &[u8]) {
        let mut message = Object::with_capacity(content.len() + 40);
        push_text(message.member("role"), role);
        message.member("content").extend_from_slice(content);
        self.push(message);
    }

    /// Writes the system prompt.
    fn begin(&mut self) {
        if let Some(system) = self.system.take() {
            self.add("system", ["\"", &system, "\""].concat().as_bytes());
        }
    }

    fn push(&mut self, message: Object) {
        self.begin();
        self.out.push(if self.out.is_empty() { b'[' } else { b',' });
        self.out.append(&mut message.finish());
    }

    fn take(&mut self, item: &RawValue) -> Result<(), Fault> {
        let Some([kind, role]) = members_of(item.get(), ["type", "role"]) else {
            return Err(Fault::at("", "must be an object with a `type`"));
        };
        match kind.map(RawValue::get) {
            Some(r#""message""#) => self.take_message(item),
            None if role.is_some() => self.take_message(item),
            Some(r#""function_call""#) => self.take_call(item, false),
            Some(r#""custom_tool_call""#) => self.take_call(item, true),
            Some(r#""function_call_output""# | r#""custom_tool_call_output""#) => self.take_output(item),
            Some(r#""reasoning""#) => {
                self.take_reasoning(item);
                Ok(())
            }
            // Some clients refer to thoughts even where they were told that nothing is stored. A model does without.
            Some(r#""item_reference""#) if refers_to_thoughts(item) => Ok(()),
            Some(r#""item_reference""#) => Err(Fault::at(
                ".type",
                "must not be \"item_reference\": nothing is stored here; send the item itself in its place, as most clients do when they are set to `store: false`",
            )),
            _ => Err(Fault::at(".type", KINDS)),
        }
    }

    fn take_message(&mut self, item: &RawValue) -> Result<(), Fault> {
        let [role, content] = members_of(item.get(), ["role", "content"]).unwrap_or_default();
        let role = match role.map(RawValue::get) {
            Some(r#""user""#) => "user",
            // Most models' templates know no developer.
            Some(r#""system""# | r#""developer""#) => "system",
            Some(r#""assistant""#) => "assistant",
            _ => {
                let must = "must be one of \"user\", \"assistant\", \"system\" and \"developer\"";
                return Err(Fault::at(".role", must));
            }
        };
        let content =
            content.ok_or_else(|| Fault::at(".content", "is required: give it as a string or an array of parts"))?;
        let within = |fault: Fault| fault.within(".content");
        let parts = content::parts(content).map_err(within)?;
        if role == "assistant" {
            let text = content::joined(&parts, "").map_err(within)?;
            self.say(&text);
            return Ok(());
        }
        self.end_turn();
        if role == "system"
            && self.out.is_empty()
            && let Ok(text) = content::joined(&parts, "\\n\\n")
        {
            let system = self.system.get_or_insert_default();
            system.push_str(if system.is_empty() || text.is_empty() { "" } else { "\\n\\n" });
            system.push_str(&text);
            return Ok(());
        }
        let mut written = Vec::with_capacity(content.get().len());
        content::write(&mut written, &parts);
        // Later than at the beginning the same templates take no system prompt, and the user says it.
        self.add("user", &written);
        Ok(())
    }

    fn say(&mut self, text: &str) {
        if self.turn.content.is_some() && self.turn.calls.is_empty() {
            let thought = std::mem::take(&mut self.thought);
            self.end_turn();
            self.thought = thought;
        }
        self.turn.reasoning.push_str(&std::mem::take(&mut self.thought));
        self.turn.content.get_or_insert_default().push_str(text);
    }

    fn take_reasoning(&mut self, item: &RawValue) {
        let [content, summary] = members_of(item.get(), ["content", "summary"]).unwrap_or_default();
        let text = content.map(|content| texts(content, "")).filter(|text| !text.is_empty());
        let text = text.or_else(|| summary.map(|summary| texts(summary, "\\n\\n")));
        self.thought.push_str(&text.unwrap_or_default());
    }

    fn take_call(&mut self, item: &RawValue, is_custom: bool) -> Result<(), Fault> {
        let names = ["call_id", "name", "namespace", "arguments", "input"];
        let [id, name, namespace, arguments, input] = members_of(item.get(), names).unwrap_or_default();
        let id = needed_text(".call_id", id)?;
        let name = needed_name(".name", name)?;
        let namespace = namespace.map(|namespace| needed_name(".namespace", Some(namespace))).transpose()?;
        let mut function = Object::with_capacity(item.get().len());
        push_text(function.member("name"), &name_in_chat(namespace.as_deref(), &name));
        if is_custom {
            let input = needed_text(".input", input)?;
            push_text(function.member("arguments"), &format!("{{\"{INPUT}\":{}}}", input.get()));
        } else {
            function.set("arguments", needed_text(".arguments", arguments)?.get());
        }
        let mut call = Object::with_capacity(item.get().len());
        call.set("id", id.get());
        call.set("type", "\"function\"");
        call.member("function").append(&mut function.finish());
        self.turn.reasoning.push_str(&std::mem::take(&mut self.thought));
        self.turn.calls.push(if self.turn.calls.is_empty() { b'[' } else { b',' });
        self.turn.calls.append(&mut call.finish());
        Ok(())
    }

    fn take_output(&mut self, item: &RawValue) -> Result<(), Fault> {
        let [id, output] = members_of(item.get(), ["call_id", "output"]).unwrap_or_default();
        let id = needed_text(".call_id", id)?;
        let output =
            output.ok_or_else(|| Fault::at(".output", "is required: give it as a string or an array of parts"))?;
        let parts = content::parts(output).map_err(|fault| fault.within(".output"))?;
        self.end_turn();
        let mut message = Object::with_capacity(output.get().len() + 64);
        message.set("role", "\"tool\"");
        message.set("tool_call_id", id.get());
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            let text = content::joined(&parts, "\\n")?;
            message.set("content", &["\"", &text, "\""].concat());
        } else {
            content::write(message.member("content"), &parts);
        }
        self.push(message);
        Ok(())
    }

    /// What follows is no longer the assistant's. A thought after which it said nothing is left out.
    fn end_turn(&mut self) {
        self.thought.clear();
        let Turn { reasoning, content, mut calls } = std::mem::take(&mut self.turn);
        if content.is_none() && calls.is_empty() {
            return;
        }
        let mut message = Object::with_capacity(reasoning.len() + calls.len() + 96);
        message.set("role", "\"assistant\"");
        match content {
            Some(text) => message.set("content", &["\"", &text, "\""].concat()),
            None => message.set("content", "null"),
        }
        if !reasoning.is_empty() {
            message.set("reasoning_content", &["\"", &reasoning, "\""].concat());
        }
        if !calls.is_empty() {
            calls.push(b']');
            message.member("tool_calls").append(&mut calls);
        }
        self.push(message);
    }
}

/// The texts of a list of parts, joined; what has none is left out.
fn texts(list: &RawValue, between: &str) -> String {
    let mut all = String::new();
    let _listed = try_each(list, "", |_, part| {
        let [text] = members_of(part.get(), ["text"]).unwrap_or_default();
        if let Some(text) = text.filter(|text| is_text(text)) {
            if !all.is_empty() {
                all.push_str(between);
            }
            all.push_str(inner(text));
        }
        Ok(())
    });
    all
}

/// Whether it is the id of a reasoning item, as [`Item`](super::item::Item) makes it.
fn refers_to_thoughts(reference: &RawValue) -> bool {
    let [id] = members_of(reference.get(), ["id"]).unwrap_or_default();
    id.is_some_and(|id| id.get().starts_with("\"rs_"))
}
