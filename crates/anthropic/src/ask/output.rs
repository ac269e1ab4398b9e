//! Holds: how a request wants its answer thought through and formed.

use batchin_openai::InvalidRequest;
use serde_json::value::RawValue;

use super::{
    blocks::one_of,
    members::{Members, word},
    path::Path,
};

/// Ways of thinking.
const THINKING: &[&str] = &["enabled", "adaptive", "between_tools", "disabled"];

/// Efforts, each with the one that a chat knows.
const EFFORTS: [(&str, &str); 5] =
    [("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high"), ("max", "high")];

/// What the chat says of its answer.
#[derive(Default)]
pub(super) struct Output {
    /// Its `reasoning_effort`.
    pub(super) effort: Option<&'static str>,
    /// Its `response_format`.
    pub(super) format: Option<String>,
}

/// Reads `thinking`, `output_config` and the older `output_format`.
pub(super) fn output(body: &Members<'_>) -> Result<Output, InvalidRequest> {
    let thinks = thinks(body.get("thinking"))?;
    let older = Path::of("output_format");
    let mut output = Output { effort: None, format: format(body.get("output_format"), &older)? };
    let Some(json) = body.get("output_config") else { return Ok(output) };
    let path = Path::of("output_config");
    let config = path.object(json)?;
    // Whether a model thinks is switched differently by each server, and a switch that one does not know it refuses: an
    // effort is the only wish that goes on.
    output.effort = effort(config.get("effort"), &path)?.filter(|_| thinks);
    if let Some(json) = config.get("format") {
        if output.format.is_some() {
            return Err(older.fault("and `output_config.format` say the same; send `output_config.format` alone"));
        }
        output.format = format(Some(json), &path.member("format"))?;
    }
    Ok(output)
}

/// Whether the request leaves it to the model to think.
fn thinks(json: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    let Some(json) = json else { return Ok(true) };
    let path = Path::of("thinking");
    let kind = path.object(json)?.get("type").and_then(word).unwrap_or_default();
    if !THINKING.contains(&kind.as_ref()) {
        return Err(path.member("type").fault(&one_of(THINKING)));
    }
    Ok(kind != "disabled")
}

fn effort(json: Option<&RawValue>, path: &Path<'_>) -> Result<Option<&'static str>, InvalidRequest> {
    let Some(json) = json else { return Ok(None) };
    let asked = word(json).unwrap_or_default();
    let known = EFFORTS.iter().find(|(name, _)| *name == asked);
    let (_, effort) = known.ok_or_else(|| path.member("effort").fault(&one_of(&EFFORTS.map(|(name, _)| name))))?;
    Ok(Some(effort))
}

fn format(json: Option<&RawValue>, path: &Path<'_>) -> Result<Option<String>, InvalidRequest> {
    const KIND: &str = "json_schema";
    let Some(json) = json else { return Ok(None) };
    let format = path.object(json)?;
    if format.get("type").and_then(word).unwrap_or_default() != KIND {
        return Err(path.member("type").fault(&one_of(&[KIND])));
    }
    let schema = format.get("schema").map(RawValue::get).filter(|schema| schema.starts_with('{'));
    let schema = schema.ok_or_else(|| path.member("schema").fault("is required and must be an object"))?;
    let named = format!("{{\"name\":\"output\",\"strict\":true,\"schema\":{schema}}}");
    Ok(Some(format!("{{\"type\":\"{KIND}\",\"{KIND}\":{named}}}")))
}
