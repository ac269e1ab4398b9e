//! Holds: a conversation, as the messages of a chat.

use std::{borrow::Cow, fmt::Write};

use batchin_openai::InvalidRequest;
use serde_json::value::RawValue;

use super::{
    blocks::{Content, OF_ASSISTANT, OF_SYSTEM, OF_USER, Part, ToolResult, content, one_of},
    members::{items, word},
    path::Path,
};

/// What Claude Code's system prompt begins with, for Anthropic's accounts alone. It differs in each request, so that no
/// server would find the rest of the prompt in its cache.
const BILLING_LINE: &str = "x-anthropic-billing-header:";

/// What stands in a tool's message whose result has no text.
const SHOWN_BELOW: &str = "(shown in the next message)";

/// The `messages` of the chat: the system prompt, then the conversation.
pub(super) fn messages(system: Option<&RawValue>, listed: Option<&RawValue>) -> Result<String, InvalidRequest> {
    let mut chat = Chat { json: String::from("["), turn: Turn::None };
    if let Some(system) = system {
        chat.push_system(system, &Path::of("system"))?;
    }
    let path = Path::of("messages");
    let must = "is required and must be a non-empty array of objects such as {\"role\": \"user\", \"content\": …}";
    let listed = listed.and_then(items).filter(|listed| !listed.is_empty()).ok_or_else(|| path.fault(must))?;
    for (index, message) in listed.into_iter().enumerate() {
        chat.push_message(message, &path.item(index))?;
    }
    chat.end_turn();
    chat.json.push(']');
    Ok(chat.json)
}

/// A chat's messages so far. Messages of one role that follow each other are one turn, as in Anthropic's API: the templates
/// of many models demand that roles take turns.
struct Chat<'a> {
    json: String,
    turn: Turn<'a>,
}

/// What the message says that has not ended.
enum Turn<'a> {
    None,
    System(Vec<Part<'a>>),
    User(Vec<Part<'a>>),
    Assistant(Content<'a>),
}

impl<'a> Chat<'a> {
    fn push_message(&mut self, message: &'a RawValue, path: &Path<'_>) -> Result<(), InvalidRequest> {
        let message = path.object(message)?;
        let role = message.get("role").and_then(word).unwrap_or_default();
        let path_of_content = path.member("content");
        let said = message.get("content");
        let said = said.ok_or_else(|| path_of_content.fault("is required: give it as a string or an array of blocks"));
        match role.as_ref() {
            "user" => self.push_user(content(said?, &path_of_content, OF_USER)?),
            "assistant" => self.push_assistant(content(said?, &path_of_content, OF_ASSISTANT)?),
            "system" => self.push_system(said?, &path_of_content)?,
            _ => return Err(path.member("role").fault(&one_of(&["user", "assistant", "system"]))),
        }
        Ok(())
    }

    /// Later than at the beginning, where templates take no system prompt, the user says it.
    fn push_system(&mut self, system: &'a RawValue, path: &Path<'_>) -> Result<(), InvalidRequest> {
        let mut parts = content(system, path, OF_SYSTEM)?.parts;
        for part in &mut parts {
            part.strip_billing_line();
        }
        parts.retain(|part| part.text().is_some_and(|text| !text.is_empty()));
        if parts.is_empty() {
            return Ok(());
        }
        match &mut self.turn {
            Turn::System(said) => said.append(&mut parts),
            Turn::None => self.turn = Turn::System(parts),
            Turn::User(_) | Turn::Assistant(_) => self.say_as_user(parts),
        }
        Ok(())
    }

    /// A chat has each tool's result in a message of its own, right after the calls.
    fn push_user(&mut self, content: Content<'a>) {
        let Content { parts, results, .. } = content;
        if !matches!(self.turn, Turn::User(_)) {
            self.end_turn();
        }
        let mut said = Vec::with_capacity(parts.len());
        let only_results = !results.is_empty();
        for result in results {
            self.push_result(&result);
            said.extend(shown(result));
        }
        said.extend(parts);
        if !said.is_empty() || !only_results {
            self.say_as_user(said);
        }
    }

    fn say_as_user(&mut self, mut parts: Vec<Part<'a>>) {
        if let Turn::User(said) = &mut self.turn {
            return said.append(&mut parts);
        }
        self.end_turn();
        self.turn = Turn::User(parts);
    }

    fn push_result(&mut self, result: &ToolResult<'_>) {
        let text = Part::joined(&result.parts);
        let has_media = result.parts.iter().any(|part| part.text().is_none());
        let text = if text.is_empty() && has_media { SHOWN_BELOW } else { &text };
        // A chat has no other place for it.
        let failed = if result.failed { "Error: " } else { "" };
        self.begin("tool");
        let _ = write!(self.json, ",\"tool_call_id\":\"{}\",\"content\":\"{failed}{text}\"}}", result.call);
    }

    fn push_assistant(&mut self, content: Content<'a>) {
        if let Turn::Assistant(said) = &mut self.turn {
            return said.append(content);
        }
        self.end_turn();
        self.turn = Turn::Assistant(content);
    }

    fn end_turn(&mut self) {
        let (role, parts) = match std::mem::replace(&mut self.turn, Turn::None) {
            Turn::None => return,
            Turn::Assistant(content) => return self.write_assistant(&content),
            Turn::System(parts) => ("system", parts),
            Turn::User(parts) => ("user", parts),
        };
        self.begin(role);
        self.push_content(&parts);
        self.json.push('}');
    }

    fn write_assistant(&mut self, content: &Content<'_>) {
        self.begin("assistant");
        if content.parts.is_empty() && !content.calls.is_empty() {
            self.json.push_str(",\"content\":null");
        } else {
            self.push_content(&content.parts);
        }
        let thoughts = content.thoughts.join("\\n\\n");
        if !thoughts.is_empty() {
            let _ = write!(self.json, ",\"reasoning_content\":\"{thoughts}\"");
        }
        if !content.calls.is_empty() {
            let _ = write!(self.json, ",\"tool_calls\":[{}]", content.calls.join(","));
        }
        self.json.push('}');
    }

    fn begin(&mut self, role: &str) {
        let comma = if self.json.len() > 1 { "," } else { "" };
        let _ = write!(self.json, "{comma}{{\"role\":\"{role}\"");
    }

    /// Texts alone are one text, which the template of every model takes.
    fn push_content(&mut self, parts: &[Part<'_>]) {
        if parts.iter().all(|part| part.text().is_some()) {
            let _ = write!(self.json, ",\"content\":\"{}\"", Part::joined(parts));
            return;
        }
        self.json.push_str(",\"content\":[");
        for (index, part) in parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = match part {
                Part::Text(text) => write!(self.json, "{comma}{{\"type\":\"text\",\"text\":\"{text}\"}}"),
                Part::Media(json) => write!(self.json, "{comma}{json}"),
            };
        }
        self.json.push(']');
    }
}

impl Part<'_> {
    fn strip_billing_line(&mut self) {
        let Part::Text(text) = self else { return };
        if !text.starts_with(BILLING_LINE) {
            return;
        }
        let rest = text.split_once("\\n").map_or("", |(_, rest)| rest);
        *text = Cow::Owned(rest.to_owned());
    }
}

/// What of a tool's result is no text goes to the user's message, as servers take it there alone.
fn shown(result: ToolResult<'_>) -> Vec<Part<'_>> {
    let mut media: Vec<Part<'_>> = result.parts.into_iter().filter(|part| part.text().is_none()).collect();
    if !media.is_empty() {
        let line = format!("From the result of tool call {}:", result.call);
        media.insert(0, Part::Text(Cow::Owned(line)));
    }
    media
}
