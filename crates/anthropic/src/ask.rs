//! Holds: a request to the Messages API, asked as a chat.
//!
//! What a chat has under another name or in another form is put into it; what only Anthropic's servers know is left out, or
//! refused where the answer would be another one without it; every other member goes on as it came.

mod blocks;
mod members;
mod messages;
mod output;
mod path;
mod tools;

use std::fmt::Write;

use batchin_openai::{AskedAs, InvalidRequest};

use self::{
    members::{Members, items, word},
    path::Path,
};
use crate::told::AsMessage;

/// Members that are read here. They may stand in the body only once, and in small letters.
const READ: [&str; 16] = [
    "container",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "n",
    "output_config",
    "output_format",
    "stop_sequences",
    "stream",
    "system",
    "thinking",
    "thread",
    "tool_choice",
    "tools",
];

/// Members that change no answer, or only where and at which price Anthropic gives it, or what of a long conversation it
/// still reads.
const LEFT_OUT: [&str; 13] = [
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "billing_policy",
    "cache_control",
    "compaction",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "service_tier",
    "speed",
    "user_profile_id",
    "workspace_id",
];

/// OpenAI refuses a longer `user`. It helps to find abuse and changes no answer.
const MAX_USER_BYTES: usize = 64;

/// Asks a request as a chat. What the chat is checked for anyway is not checked here.
pub fn ask_as_chat(body: &[u8]) -> Result<AskedAs, InvalidRequest> {
    let members = Members::of_body(body)?;
    check_names(&members)?;
    check_unserved(&members)?;
    let stop_sequences = tools::stop_sequences(members.get("stop_sequences"))?;
    let mut chat = Chat { json: String::with_capacity(body.len() + 256), written: Vec::new() };
    chat.write_limits(&members, &stop_sequences)?;
    chat.write("messages", &messages::messages(members.get("system"), members.get("messages"))?);
    chat.write_tools(&members)?;
    chat.write_output(&members)?;
    chat.pass_on(&members)?;
    chat.json.push('}');
    Ok(AskedAs { body: chat.json.into(), retelling: Box::new(AsMessage::new(stop_sequences)) })
}

fn check_names(members: &Members<'_>) -> Result<(), InvalidRequest> {
    let mut seen = [false; READ.len()];
    for (key, _) in members.iter() {
        let known = READ.iter().position(|name| *name == key);
        if let Some(known) = known.or_else(|| by_case(key)) {
            let name = READ[known];
            if key != name {
                let message = format!("a member differs from `{name}` by case alone; leave it out");
                return Err(InvalidRequest::at(name, message));
            }
            if std::mem::replace(&mut seen[known], true) {
                let message = format!("`{name}` stands in the body more than once; send it once");
                return Err(InvalidRequest::at(name, message));
            }
        }
    }
    Ok(())
}

/// Which member this name differs from by case alone, as servers written in Go fold it: `ſ` is an s, the Kelvin sign a k.
fn by_case(key: &str) -> Option<usize> {
    if key.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return None;
    }
    let folded = key.to_uppercase().to_lowercase();
    READ.iter().position(|name| *name == folded)
}

/// Refuses what no server here can do and what the answer would lack.
fn check_unserved(members: &Members<'_>) -> Result<(), InvalidRequest> {
    let fault = |name: &'static str, why: &str| {
        let message = format!("`{name}` is not supported: {why}");
        Err(InvalidRequest::at(name, message))
    };
    if members.get("container").is_some() {
        return fault("container", "no server here keeps one; leave it out");
    }
    if members.get("mcp_servers").is_some_and(|servers| items(servers).is_none_or(|servers| !servers.is_empty())) {
        return fault("mcp_servers", "no server here calls others; offer their tools as your own");
    }
    if members.get("thread").is_some() {
        return fault("thread", "conversations are not kept; send all messages");
    }
    if members.get("inference_geo").is_some_and(|place| word(place).is_none_or(|place| place != "global")) {
        return fault("inference_geo", "servers are not chosen by where they stand; leave it out");
    }
    if members.get("n").is_some_and(|count| count.get() != "1") {
        return fault("n", "a message is one answer; leave it out");
    }
    Ok(())
}

/// A chat's body so far.
struct Chat {
    json: String,
    written: Vec<&'static str>,
}

impl Chat {
    fn write(&mut self, name: &'static str, value: &str) {
        self.push(&format!("\"{name}\""), value);
        self.written.push(name);
    }

    fn push(&mut self, name: &str, value: &str) {
        let mark = if self.json.is_empty() { '{' } else { ',' };
        let _ = write!(self.json, "{mark}{name}:{value}");
    }

    fn write_limits(&mut self, members: &Members<'_>, stop_sequences: &[String]) -> Result<(), InvalidRequest> {
        let path = Path::of("max_tokens");
        let limit = members.get("max_tokens").ok_or_else(|| path.fault("is required: give a whole number from 1"))?;
        if !limit.get().parse().is_ok_and(|limit: u64| limit > 0) {
            return Err(path.fault("must be a whole number from 1"));
        }
        self.write("max_tokens", limit.get());
        if let Some(listed) = members.get("stop_sequences").filter(|_| !stop_sequences.is_empty()) {
            self.write("stop", listed.get());
        }
        if let Some(stream) = members.get("stream") {
            self.write("stream", stream.get());
            if stream.get() == "true" {
                self.write("stream_options", "{\"include_usage\":true}");
            }
        }
        let Some(metadata) = members.get("metadata") else { return Ok(()) };
        let path = Path::of("metadata");
        let user = path.text_if_any(&path.object(metadata)?, "user_id")?;
        if let Some(user) = user.filter(|user| !user.is_empty() && user.len() <= MAX_USER_BYTES) {
            self.write("user", &format!("\"{user}\""));
        }
        Ok(())
    }

    fn write_tools(&mut self, members: &Members<'_>) -> Result<(), InvalidRequest> {
        let tools = tools::tools(members.get("tools"))?;
        let choice = tools::tool_choice(members.get("tool_choice"), tools.is_some())?;
        if let Some(tools) = tools {
            self.write("tools", &tools);
        }
        if let Some(tool) = choice.tool {
            self.write("tool_choice", &tool);
        }
        if choice.one_at_a_time {
            self.write("parallel_tool_calls", "false");
        }
        Ok(())
    }

    fn write_output(&mut self, members: &Members<'_>) -> Result<(), InvalidRequest> {
        let output = output::output(members)?;
        if let Some(effort) = output.effort {
            self.write("reasoning_effort", &format!("\"{effort}\""));
        }
        if let Some(format) = output.format {
            self.write("response_format", &format);
        }
        Ok(())
    }

    /// Members of which nothing is known here, such as `temperature`, and those of a chat that servers take beside.
    fn pass_on(&mut self, members: &Members<'_>) -> Result<(), InvalidRequest> {
        for (key, value) in members.iter().filter(|(key, _)| !READ.contains(key) && !LEFT_OUT.contains(key)) {
            if let Some(name) = self.written.iter().find(|name| **name == key) {
                let ours = crate::told::member(name);
                let message = format!("`{name}` and `{ours}` say the same; send `{ours}` alone");
                return Err(InvalidRequest::at(*name, message));
            }
            self.push(&serde_json::Value::from(key).to_string(), value.get());
        }
        Ok(())
    }
}
