//! Holds: the tools of a request: whether the model may, must or must not call one. Pure.

use serde_json::{Value, json};

use super::{body::GenerateBody, error::ApiError, sampling::grammar_of};
use crate::text::chat_template::ChatTemplate;

/// Tools of one request; each is printed into the prompt.
const MAX_TOOLS: usize = 128;

/// What a request wants with tools.
pub(super) enum ToolUse {
    /// There are none, or they must not be called.
    Off,
    /// The model decides.
    Free(Value),
    /// The answer must be a call; this grammar allows nothing else.
    Forced(Value, String),
}

impl ToolUse {
    /// What the template is given.
    pub(super) fn listed(&self) -> Option<&Value> {
        match self {
            Self::Off => None,
            Self::Free(tools) | Self::Forced(tools, _) => Some(tools),
        }
    }
}

/// Reads `tools` and `tool_choice`.
pub(super) fn tool_use(body: &mut GenerateBody, template: &ChatTemplate) -> Result<ToolUse, ApiError> {
    let tools = body.tools.take().unwrap_or_default();
    if tools.is_empty() {
        return Ok(ToolUse::Off);
    }
    if tools.len() > MAX_TOOLS {
        return Err(ApiError::invalid("tools", format!("At most {MAX_TOOLS} tools can be given.")));
    }
    for (at, tool) in tools.iter().enumerate() {
        if tool.pointer("/function/name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(ApiError::invalid(
                format!("tools[{at}].function.name"),
                "A tool needs a function with a name.",
            ));
        }
    }
    let choice = body.tool_choice.take();
    let named = choice.as_ref().and_then(|choice| choice.pointer("/function/name")).and_then(Value::as_str);
    let forced: Vec<&Value> = match (choice.as_ref().and_then(Value::as_str), named) {
        (Some("none"), _) => return Ok(ToolUse::Off),
        (Some("required"), _) => tools.iter().collect(),
        (_, Some(name)) => tools.iter().filter(|tool| tool["function"]["name"] == name).collect(),
        (Some("auto"), _) => Vec::new(),
        (None, None) if choice.is_none() => Vec::new(),
        _ => return Err(ApiError::invalid("tool_choice", "`tool_choice` is none, auto, required or one function.")),
    };
    if !template.takes_tools() {
        return Err(ApiError::invalid("tools", "This model's chat template has no place for tools."));
    }
    if named.is_some() && forced.is_empty() {
        return Err(ApiError::invalid("tool_choice", "`tool_choice` names a function that `tools` does not have."));
    }
    if forced.is_empty() {
        return Ok(ToolUse::Free(Value::Array(tools)));
    }
    let grammar = call_grammar(&forced)?;
    Ok(ToolUse::Forced(Value::Array(tools), grammar))
}

/// A grammar for exactly one call of one of these functions.
fn call_grammar(tools: &[&Value]) -> Result<String, ApiError> {
    let calls: Vec<Value> = tools
        .iter()
        .map(|tool| {
            let function = &tool["function"];
            let arguments = function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
            json!({
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
            })
        })
        .collect();
    let inner = grammar_of("tools", &json!({"anyOf": calls}))?;
    Ok(wrap_root(&inner, r#""<tool_call>\n" call "\n</tool_call>""#))
}

/// Makes what was the root the rule `call` of a larger grammar.
fn wrap_root(grammar: &str, root: &str) -> String {
    let rules = grammar.lines().map(|rule| match rule.strip_prefix("root ::=") {
        Some(body) => format!("call ::={body}\n"),
        None => format!("{rule}\n"),
    });
    format!("root ::= {root}\n{}", rules.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_root_becomes_a_rule() {
        let grammar = wrap_root("a ::= \"x\"\nroot ::= a a\n", "\"<\" call \">\"");
        assert_eq!(grammar, "root ::= \"<\" call \">\"\na ::= \"x\"\ncall ::= a a\n");
    }
}
