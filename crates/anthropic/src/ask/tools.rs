//! Holds: the tools that a request offers, and which of them it wants called.

use std::fmt::Write;

use batchin_openai::InvalidRequest;
use serde_json::value::RawValue;

use super::{
    blocks::one_of,
    members::{Members, inner, items, word},
    path::Path,
};

/// What the types of tools begin with that Anthropic's servers run themselves.
const RUN_BY_SERVERS: [&str; 6] =
    ["web_search", "web_fetch", "code_execution", "tool_search", "mcp_toolset", "advisor"];

/// The `tools` of the chat. `None` when none are offered: some servers refuse an empty list.
pub(super) fn tools(listed: Option<&RawValue>) -> Result<Option<String>, InvalidRequest> {
    let path = Path::of("tools");
    let Some(listed) = listed else { return Ok(None) };
    let listed = items(listed).ok_or_else(|| path.fault("must be an array of tools"))?;
    let mut json = String::new();
    for (index, tool) in listed.into_iter().enumerate() {
        let path = path.item(index);
        json.push(if json.is_empty() { '[' } else { ',' });
        json.push_str(&function(&path.object(tool)?, &path)?);
    }
    Ok((!json.is_empty()).then(|| json + "]"))
}

fn function(tool: &Members<'_>, path: &Path<'_>) -> Result<String, InvalidRequest> {
    let schema = schema(tool, path)?;
    if path.flag(tool, "defer_loading")? {
        let must = "must be false or left out: every tool is shown to the model from the beginning";
        return Err(path.member("defer_loading").fault(must));
    }
    let mut json = format!("{{\"type\":\"function\",\"function\":{{\"name\":\"{}\"", path.text(tool, "name")?);
    if let Some(description) = path.text_if_any(tool, "description")? {
        let _ = write!(json, ",\"description\":\"{description}\"");
    }
    let _ = write!(json, ",\"parameters\":{}", schema.get());
    if tool.get("strict").is_some() {
        let _ = write!(json, ",\"strict\":{}", path.flag(tool, "strict")?);
    }
    json.push_str("}}");
    Ok(json)
}

/// The schema of a tool that the client runs.
fn schema<'a>(tool: &Members<'a>, path: &Path<'_>) -> Result<&'a RawValue, InvalidRequest> {
    let of_type = path.member("type");
    let kind = match tool.get("type") {
        None => "custom".into(),
        Some(kind) => word(kind).ok_or_else(|| of_type.fault("must be a string"))?,
    };
    if RUN_BY_SERVERS.iter().any(|begin| kind.starts_with(begin)) {
        return Err(of_type.fault("is a tool that is run where the model is, and no server here runs it; leave it out"));
    }
    match tool.get("input_schema") {
        Some(schema) if schema.get().starts_with('{') => Ok(schema),
        None if kind != "custom" => {
            let must =
                "is a tool whose schema Anthropic's models alone know; give it an `input_schema`, or leave it out";
            Err(of_type.fault(must))
        }
        _ => Err(path.member("input_schema").fault("is required and must be an object")),
    }
}

/// What the chat says of the calls that it wants.
#[derive(Default)]
pub(super) struct Choice {
    /// Its `tool_choice`.
    pub(super) tool: Option<String>,
    /// Its `parallel_tool_calls` is false.
    pub(super) one_at_a_time: bool,
}

/// Reads `tool_choice`.
pub(super) fn tool_choice(json: Option<&RawValue>, are_offered: bool) -> Result<Choice, InvalidRequest> {
    let path = Path::of("tool_choice");
    let Some(json) = json else { return Ok(Choice::default()) };
    let choice = path.object(json)?;
    let kind = choice.get("type").and_then(word).unwrap_or_default();
    let one_at_a_time = path.flag(&choice, "disable_parallel_tool_use")?;
    let tool = match kind.as_ref() {
        "auto" => "\"auto\"".to_owned(),
        "any" => "\"required\"".to_owned(),
        "none" => "\"none\"".to_owned(),
        "tool" => {
            let name = path.text(&choice, "name")?;
            format!("{{\"type\":\"function\",\"function\":{{\"name\":\"{name}\"}}}}")
        }
        _ => return Err(path.member("type").fault(&one_of(&["auto", "any", "tool", "none"]))),
    };
    if are_offered {
        return Ok(Choice { tool: Some(tool), one_at_a_time });
    }
    if matches!(kind.as_ref(), "auto" | "none") {
        // It says nothing then, and some servers refuse it.
        return Ok(Choice::default());
    }
    Err(path.fault("asks for a call and no tools are offered; give `tools`, or leave it out"))
}

/// The `stop_sequences`, decoded.
pub(super) fn stop_sequences(json: Option<&RawValue>) -> Result<Vec<String>, InvalidRequest> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let path = Path::of("stop_sequences");
    let listed = items(json).ok_or_else(|| path.fault("must be an array of strings"))?;
    let text = |(index, item)| {
        let text = inner(item).and_then(|_| word(item));
        text.map(String::from).ok_or_else(|| path.item(index).fault("must be a string of whole characters"))
    };
    listed.into_iter().enumerate().map(text).collect()
}
