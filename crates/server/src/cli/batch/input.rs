//! Holds: the lines of an input file, turned into tasks.
//!
//! Three shapes are understood: the API's own, OpenAI's, and a bare body with a model from the command line. Every
//! fault of the file is found before anything is sent; bodies are passed on as they were written.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::value::RawValue;

/// One task, as the API takes it.
#[derive(Debug, Serialize)]
pub(super) struct Task {
    pub custom_id: String,
    pub model: String,
    pub request_body: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What is wrong with one line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineFault {
    pub line: usize,
    pub what: String,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// Paths that a task may name.
const URLS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// What a body must have one of, to be a request at all.
const KINDS: [&str; 3] = ["messages", "prompt", "input"];

/// Room for `{"tasks":[…],"priority":"high"}` around the tasks.
const ENVELOPE_BYTES: usize = 64;

/// All tasks of `text`, or all of its faults.
pub(super) fn parse(text: &str, model: Option<&str>) -> Result<Vec<Task>, Vec<LineFault>> {
    let mut tasks = Vec::new();
    let mut faults = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, content) in text.lines().enumerate().filter(|(_, content)| !content.trim().is_empty()) {
        let line = index + 1;
        let task = parse_line(content, line, model).and_then(|task| {
            let first = *seen.entry(task.custom_id.clone()).or_insert(line);
            if first == line {
                Ok(task)
            } else {
                Err(format!("custom_id \"{}\" is also on line {first}", task.custom_id))
            }
        });
        match task {
            Ok(task) => tasks.push(task),
            Err(what) => faults.push(LineFault { line, what }),
        }
    }
    if tasks.is_empty() && faults.is_empty() {
        faults.push(LineFault { line: 1, what: "there is no task in this file".to_owned() });
    }
    if faults.is_empty() { Ok(tasks) } else { Err(faults) }
}

/// The JSON bodies of as few batches as `limit` bytes each allow, in the order of the tasks.
pub(super) fn split(tasks: &[Task], priority: Option<&str>, limit: usize) -> Vec<String> {
    let end = priority.map_or_else(|| "]}".to_owned(), |priority| format!("],\"priority\":\"{priority}\"}}"));
    let mut bodies = Vec::new();
    let mut body = String::new();
    for task in tasks {
        let json = in_json(task);
        if !body.is_empty() && body.len() + json.len() + ENVELOPE_BYTES > limit {
            bodies.push(std::mem::take(&mut body) + &end);
        }
        body.push_str(if body.is_empty() { "{\"tasks\":[" } else { "," });
        body.push_str(&json);
    }
    if !body.is_empty() {
        bodies.push(body + &end);
    }
    bodies
}

fn parse_line(content: &str, line: usize, model: Option<&str>) -> Result<Task, String> {
    let mut fields: Fields = serde_json::from_str(content).map_err(|error| not_json(&error))?;
    let custom_id = text(&mut fields, "custom_id")?;
    let named = text(&mut fields, "model")?;
    let url = text(&mut fields, "url")?;
    check_url(url.as_deref())?;
    let (body, named) = if let Some(body) = fields.remove("request_body") {
        refuse_others(&fields, "custom_id, model, request_body, url")?;
        (body, named)
    } else if let Some(body) = fields.remove("body") {
        let method = text(&mut fields, "method")?;
        if method.is_some_and(|method| method != "POST") {
            return Err("method must be \"POST\"".to_owned());
        }
        refuse_others(&fields, "custom_id, method, url, body")?;
        let inner = model_of(&body)?;
        (body, named.or(inner))
    } else {
        let body = serde_json::value::to_raw_value(&fields).map_err(|error| error.to_string())?;
        (body, named)
    };
    check_body(&body, url.is_some())?;
    let model = named.or_else(|| model.map(str::to_owned)).ok_or("names no model; add \"model\", or give --model")?;
    let task = Task { custom_id: custom_id.unwrap_or_else(|| format!("line-{line}")), model, request_body: body, url };
    let size = in_json(&task).len();
    if size + ENVELOPE_BYTES > super::MAX_INLINE_BYTES {
        return Err(format!("is {size} bytes, over the {} that one batch may have", super::MAX_INLINE_BYTES));
    }
    Ok(task)
}

/// serde's own words end in a place within the one line, which is kept as the column.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.classify() {
        serde_json::error::Category::Data => "is not a JSON object".to_owned(),
        _ => format!("is not valid JSON at column {}: {what}", error.column()),
    }
}

fn text(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = fields.remove(name) else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) if text.is_empty() => Err(format!("{name} must not be empty")),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("{name} must be a text")),
    }
}

fn refuse_others(fields: &Fields, known: &str) -> Result<(), String> {
    match fields.keys().next() {
        Some(name) => Err(format!("unknown field \"{name}\"; known are {known}")),
        None => Ok(()),
    }
}

fn check_url(url: Option<&str>) -> Result<(), String> {
    match url {
        Some(url) if !URLS.contains(&url) => Err(format!("url \"{url}\" is none of {}", URLS.join(", "))),
        _ => Ok(()),
    }
}

fn check_body(body: &RawValue, has_url: bool) -> Result<(), String> {
    let fields: Fields =
        serde_json::from_str(body.get()).map_err(|_| "the request body must be an object".to_owned())?;
    if has_url || KINDS.iter().any(|kind| fields.contains_key(*kind)) {
        Ok(())
    } else {
        Err(format!("the request body has none of {}", KINDS.join(", ")))
    }
}

fn model_of(body: &RawValue) -> Result<Option<String>, String> {
    let mut fields: Fields = serde_json::from_str(body.get()).map_err(|_| "body must be an object".to_owned())?;
    text(&mut fields, "model")
}

#[expect(clippy::expect_used, reason = "texts and raw JSON always serialize")]
fn in_json(task: &Task) -> String {
    serde_json::to_string(task).expect("a task has only texts and raw JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, model: Option<&str>) -> String {
        match parse(text, model) {
            Ok(tasks) => tasks.iter().map(in_json).collect::<Vec<_>>().join("\n"),
            Err(faults) => faults.iter().map(|f| format!("{}: {}", f.line, f.what)).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn the_three_shapes_become_the_same_task() {
        let own = r#"{"custom_id":"a","model":"m","request_body":{"messages":[],"seed":12345678901234567890123}}"#;
        assert_eq!(shown(own, None), own);
        let openai = r#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}"#;
        let expected =
            r#"{"custom_id":"a","model":"m","request_body":{"model":"m","prompt":"x"},"url":"/v1/completions"}"#;
        assert_eq!(shown(openai, None), expected);
        let short = "\u{feff}{\"prompt\":\"x\"}\r\n\r\n{\"input\":\"y\",\"custom_id\":\"b\",\"model\":\"e\"}\n";
        let expected = "{\"custom_id\":\"line-1\",\"model\":\"m\",\"request_body\":{\"prompt\":\"x\"}}\n\
                        {\"custom_id\":\"b\",\"model\":\"e\",\"request_body\":{\"input\":\"y\"}}";
        assert_eq!(shown(short, Some("m")), expected);
    }

    #[test]
    fn every_fault_has_its_line() {
        let text = r#"{"prompt":"x"}
[1]
{"prompt":
{"custom_id":7,"model":"m","prompt":"x"}
{"custom_id":"a","model":"m","request_body":[]}
{"custom_id":"a","model":"m","request_body":{"prompt":"x"},"url":"/v1/nowhere"}
{"custom_id":"a","model":"m","request_body":{"temperature":1}}
{"custom_id":"a","model":"m","request_body":{"prompt":"x"}}
{"custom_id":"a","model":"m","request_body":{"prompt":"y"}}
{"custom_id":"b","model":"m","request_body":{"prompt":"y"},"priority":"high"}
{"custom_id":"c","method":"GET","url":"/v1/completions","body":{"model":"m","prompt":"x"}}"#;
        insta::assert_snapshot!(shown(text, None), @r#"
        1: names no model; add "model", or give --model
        2: is not a JSON object
        3: is not valid JSON at column 10: EOF while parsing a value
        4: custom_id must be a text
        5: the request body must be an object
        6: url "/v1/nowhere" is none of /v1/chat/completions, /v1/completions, /v1/embeddings
        7: the request body has none of messages, prompt, input
        9: custom_id "a" is also on line 8
        10: unknown field "priority"; known are custom_id, model, request_body, url
        11: method must be "POST"
        "#);
        insta::assert_snapshot!(shown("\n\n", None), @r#"
        1: there is no task in this file
        "#);
    }

    #[test]
    fn batches_stay_below_the_limit_and_keep_every_task() {
        let text: String =
            (0..100).map(|n| format!("{{\"custom_id\":\"{n}\",\"prompt\":\"{}\"}}\n", "x".repeat(n))).collect();
        let tasks = parse(&text, Some("m")).unwrap();
        let bodies = split(&tasks, Some("fill"), 1_000);
        assert!(bodies.len() > 5 && bodies.iter().all(|body| body.len() <= 1_000));
        let ids: Vec<String> = bodies
            .iter()
            .flat_map(|body| {
                let batch: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(batch["priority"], "fill");
                batch["tasks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t["custom_id"].as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(ids, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
