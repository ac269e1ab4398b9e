//! Holds: a result line as a person reads it.

use serde_json::Value;

use crate::counted::counted;

/// States of a task that was stopped with its batch.
const NOT_RUN: [&str; 2] = ["cancelled", "expired"];

/// `custom_id: answer`; a line that is not understood is shown as it came.
pub(super) fn described(line: &str) -> String {
    let Ok(result) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let Some(name) = result.get("custom_id").and_then(Value::as_str) else { return line.to_owned() };
    if let Some(error) = result.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").or(error.get("error").and_then(|inner| inner.get("message")));
        let message = message.and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
        let status = result.get("status").and_then(Value::as_str).filter(|status| NOT_RUN.contains(status));
        return format!("{name}: {}: {message}", status.unwrap_or("failed"));
    }
    // OpenAI-shaped lines have their answer in `response`.
    let said = |member: &str| result.get(member).filter(|value| !value.is_null());
    let response = said("result").or_else(|| said("response"));
    match response.map(|response| answer(response.get("body").unwrap_or(response))) {
        Some(text) if text.contains('\n') => format!("{name}:\n{text}"),
        Some(text) => format!("{name}: {text}"),
        None => format!("{name}: {}", result.get("status").and_then(Value::as_str).unwrap_or("no answer")),
    }
}

fn answer(body: &Value) -> String {
    let texts = |choices: &Vec<Value>| {
        let text = |choice: &Value| {
            let message = choice.pointer("/message/content").or_else(|| choice.get("text"));
            message.and_then(Value::as_str).map_or_else(|| choice.to_string(), |text| text.trim().to_owned())
        };
        choices.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    if let Some(choices) = body.get("choices").and_then(Value::as_array) {
        return texts(choices);
    }
    if body.get("object").and_then(Value::as_str) == Some("audio.speech") {
        let said = |member: &str| body.get(member).and_then(Value::as_str).unwrap_or("?");
        let kilobytes = body.get("bytes").and_then(Value::as_u64).unwrap_or(0).div_ceil(1_000);
        return format!("spoken, {kilobytes} kB of {} in {}", said("content_type"), said("file_id"));
    }
    match body.get("data").and_then(Value::as_array) {
        Some(vectors) => counted(vectors.len(), "embedding"),
        None => body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::described;

    #[test]
    fn a_result_reads_as_an_answer() {
        let cases = [
            (
                r#"{"custom_id":"a","status":"completed","result":{"choices":[{"message":{"content":" Hi.\n"}}]}}"#,
                "a: Hi.",
            ),
            (
                r#"{"custom_id":"b","response":{"status_code":200,"body":{"choices":[{"text":"x\ny"}]}},"error":null}"#,
                "b:\nx\ny",
            ),
            (r#"{"custom_id":"c","result":{"data":[{"embedding":[0.1]}]}}"#, "c: 1 embedding"),
            (
                r#"{"custom_id":"s","result":{"object":"audio.speech","file_id":"file-1","content_type":"audio/wav","bytes":1001}}"#,
                "s: spoken, 2 kB of audio/wav in file-1",
            ),
            (r#"{"custom_id":"d","status":"failed","error":{"code":"x","message":"too long"}}"#, "d: failed: too long"),
            (r#"{"custom_id":"e","status":"cancelled"}"#, "e: cancelled"),
            (
                r#"{"custom_id":"f","status":"expired","result":null,"error":{"code":"batch_expired","message":"Too late."}}"#,
                "f: expired: Too late.",
            ),
            (r#"{"custom_id":"g","status":"completed","result":{"data":[]},"error":null}"#, "g: 0 embeddings"),
            ("nonsense", "nonsense"),
        ];
        for (line, expected) in cases {
            assert_eq!(described(line), expected);
        }
    }
}
