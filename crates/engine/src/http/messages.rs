//! Holds: chat messages checked and brought into the one form that templates are written for. Pure.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Fields of a message that templates may look at. Clients send back what they were given with more in it: what their
/// helpers parsed, other servers' details, marks for caches.
const KNOWN_FIELDS: [&str; 11] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "reasoning",
    "reasoning_content",
    "audio",
    "annotations",
    "function_call",
];

/// Checks the messages and flattens their contents to text.
pub(super) fn normalise(messages: Vec<Map<String, Value>>) -> Result<Vec<Value>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "`messages` must have at least one message."));
    }
    messages.into_iter().enumerate().map(|(at, message)| normalise_one(&format!("messages[{at}]"), message)).collect()
}

fn normalise_one(path: &str, mut message: Map<String, Value>) -> Result<Value, ApiError> {
    message.retain(|key, _| KNOWN_FIELDS.contains(&key.as_str()));
    let role = match message.get("role").and_then(Value::as_str) {
        // OpenAI's newer name; templates know the old one.
        Some("developer") => "system",
        Some("system") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => "tool",
        _ => {
            let message = "`role` must be one of system, developer, user, assistant and tool.";
            return Err(ApiError::invalid(format!("{path}.role"), message));
        }
    };
    message.insert("role".to_owned(), role.into());
    let calls = message.get("tool_calls").is_some_and(|calls| !calls.is_null());
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => join(path, parts)?,
        Some(Value::Null) | None if calls || role == "assistant" => String::new(),
        Some(_) | None => {
            return Err(ApiError::invalid(
                format!("{path}.content"),
                "`content` must be text or a list of text parts.",
            ));
        }
    };
    message.insert("content".to_owned(), content.into());
    match message.get_mut("tool_calls") {
        Some(Value::Array(calls)) => calls.iter_mut().for_each(parse_arguments),
        Some(_) => drop(message.remove("tool_calls")),
        None => {}
    }
    Ok(Value::Object(message))
}

fn join(path: &str, parts: Vec<Value>) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (at, mut part) in parts.into_iter().enumerate() {
        let member = match part.get("type").and_then(Value::as_str) {
            Some("text") => "text",
            Some("refusal") => "refusal",
            _ => {
                let param = format!("{path}.content[{at}].type");
                return Err(ApiError::invalid(param, "This model reads parts of type `text` and `refusal` only."));
            }
        };
        match part.get_mut(member).map(Value::take) {
            Some(Value::String(text)) => texts.push(text),
            _ => {
                let param = format!("{path}.content[{at}].{member}");
                return Err(ApiError::invalid(param, format!("A part of type `{member}` needs `{member}`.")));
            }
        }
    }
    Ok(texts.join("\n"))
}

/// Clients send a call's arguments as JSON text; templates want to print them as JSON.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    if let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok()) {
        *arguments = parsed;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(messages: Value) -> Result<Vec<Value>, ApiError> {
        normalise(serde_json::from_value(messages).unwrap())
    }

    fn check_error(message: Value, param: &str) {
        let text = run(json!([{"role": "user", "content": "a"}, message])).unwrap_err().to_json();
        assert!(text.contains(&format!(r#""param":"messages[1]{param}""#)), "{text}");
    }

    #[test]
    fn parts_are_joined_and_developers_are_systems() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let messages = run(json!([{"role": "developer", "content": parts}])).unwrap();
        assert_eq!(messages, [json!({"role": "system", "content": "a\nb"})]);
    }

    #[test]
    fn what_clients_send_back_with_more_in_it_is_taken() {
        let parts = json!([{"type": "refusal", "refusal": "no"}]);
        let message = json!({"role": "assistant", "content": parts, "refusal": null, "parsed": null,
            "reasoning_details": [], "cache_control": {"type": "ephemeral"}});
        assert_eq!(run(json!([message])).unwrap(), [json!({"role": "assistant", "content": "no", "refusal": null})]);
    }

    #[test]
    fn arguments_of_calls_become_objects() {
        let call =
            json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"arguments": "{\"a\":1}"}}]});
        assert_eq!(run(json!([call])).unwrap()[0]["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
    }

    #[test]
    fn errors_name_the_field() {
        check_error(json!({"role": "wizard", "content": "x"}), ".role");
        check_error(json!({"role": "user"}), ".content");
        check_error(json!({"role": "user", "content": 1}), ".content");
        check_error(json!({"role": "user", "content": [{"type": "refusal"}]}), ".content[0].refusal");
        check_error(json!({"role": "user", "content": [{"type": "image_url"}]}), ".content[0].type");
        assert!(run(json!([])).unwrap_err().to_json().contains(r#""param":"messages""#));
    }
}
