//! Holds: the tools of a request: whether the model may, must or must not call one. Pure.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    body::GenerateBody,
    error::ApiError,
    sampling::{ANY_OBJECT, grammar_of},
};
use crate::text::chat_template::ChatTemplate;

/// Tools of one request; each is printed into the prompt.
const MAX_TOOLS: usize = 128;

/// What a request wants with tools.
pub(super) enum ToolUse {
    /// There are none, or they must not be called.
    Off,
    /// The model decides.
    Free(minijinja::Value),
    /// The answer must be a call; this grammar allows nothing else.
    Forced(minijinja::Value, String),
}

impl ToolUse {
    /// What the template is given.
    pub(super) fn listed(&self) -> Option<&minijinja::Value> {
        match self {
            Self::Off => None,
            Self::Free(tools) | Self::Forced(tools, _) => Some(tools),
        }
    }
}

/// What must be known of a tool; the rest is for the model.
#[derive(Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    parameters: Option<Box<RawValue>>,
}

/// Reads `tools` and `tool_choice`.
pub(super) fn tool_use(body: &mut GenerateBody, template: &ChatTemplate) -> Result<ToolUse, ApiError> {
    let given = body.tools.take().unwrap_or_default();
    if given.is_empty() {
        return Ok(ToolUse::Off);
    }
    if given.len() > MAX_TOOLS {
        return Err(ApiError::invalid("tools", format!("At most {MAX_TOOLS} tools can be given.")));
    }
    let (mut tools, mut listed) = (Vec::new(), Vec::new());
    for (at, tool) in given.iter().enumerate() {
        let bad = |_| ApiError::invalid(format!("tools[{at}].function.name"), "A tool needs a function with a name.");
        tools.push(serde_json::from_str::<Tool>(tool.get()).map_err(bad)?);
        listed.push(serde_json::from_str::<minijinja::Value>(tool.get()).map_err(bad)?);
    }
    let choice = body.tool_choice.take();
    let named = choice.as_ref().and_then(|choice| choice.pointer("/function/name")).and_then(Value::as_str);
    let forced: Vec<&Tool> = match (choice.as_ref().and_then(Value::as_str), named) {
        (Some("none"), _) => return Ok(ToolUse::Off),
        (Some("required"), _) => tools.iter().collect(),
        (_, Some(name)) => tools.iter().filter(|tool| tool.function.name == name).collect(),
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
    let listed = minijinja::Value::from(listed);
    if forced.is_empty() {
        return Ok(ToolUse::Free(listed));
    }
    Ok(ToolUse::Forced(listed, call_grammar(&forced)?))
}

/// A grammar for exactly one call of one of these functions.
fn call_grammar(tools: &[&Tool]) -> Result<String, ApiError> {
    let call = |tool: &&Tool| {
        let name = Value::from(tool.function.name.as_str());
        let arguments = tool.function.parameters.as_ref().map_or(ANY_OBJECT, |parameters| parameters.get());
        format!(
            r#"{{"type":"object","properties":{{"name":{{"const":{name}}},"arguments":{arguments}}},"required":["name","arguments"]}}"#
        )
    };
    let calls: Vec<String> = tools.iter().map(call).collect();
    let inner = grammar_of("tools", &format!(r#"{{"anyOf":[{}]}}"#, calls.join(",")))?;
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

    fn request(choice: &str) -> Result<ToolUse, ApiError> {
        let tools = r#"[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{"place":{"type":"string"}},"required":["place"]}}}]"#;
        let mut body: GenerateBody =
            serde_json::from_str(&format!(r#"{{"tools":{tools},"tool_choice":{choice}}}"#)).unwrap();
        let template = ChatTemplate::new("{{ tools }}".to_owned(), String::new(), String::new()).unwrap();
        tool_use(&mut body, &template)
    }

    #[test]
    fn a_choice_decides_whether_calls_are_free_or_forced() {
        assert!(matches!(request("null"), Ok(ToolUse::Free(_))));
        assert!(matches!(request("\"auto\""), Ok(ToolUse::Free(_))));
        assert!(matches!(request("\"none\""), Ok(ToolUse::Off)));
        let named = request(r#"{"type":"function","function":{"name":"look"}}"#);
        assert!(
            matches!(named, Ok(ToolUse::Forced(_, grammar)) if grammar.contains("<tool_call>") && grammar.contains("place"))
        );
        assert!(request(r#"{"type":"function","function":{"name":"jump"}}"#).is_err());
        assert!(request("3").is_err());
    }

    #[test]
    fn the_old_root_becomes_a_rule() {
        let grammar = wrap_root("a ::= \"x\"\nroot ::= a a\n", "\"<\" call \">\"");
        assert_eq!(grammar, "root ::= \"<\" call \">\"\na ::= \"x\"\ncall ::= a a\n");
    }
}
