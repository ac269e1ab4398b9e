//! Holds: one JSON line, turned into a task.
//!
//! Three shapes are understood: OpenAI's, the API's own, and a bare body with a model from the command line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use batchin_domain::CallKind;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Task;

type Members = BTreeMap<String, Box<RawValue>>;

/// Longest `custom_id` in bytes, as the API has it.
const MAX_CUSTOM_ID: usize = 512;

/// What a row is called and which model it goes to when it does not say so itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults<'a> {
    pub custom_id: Option<&'a str>,
    pub line: u64,
    pub model: Option<&'a str>,
}

/// The members of a body that decide where it goes, each of which may stand there once.
struct Probe<'a>(Vec<(&'static str, &'a RawValue)>);

impl<'a> Probe<'a> {
    /// The member, unless it is null.
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.get());
        found.filter(|value| *value != "null")
    }
}

impl<'de> Deserialize<'de> for Probe<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Probe<'de> {
    type Value = Self;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some(key) = members.next_key::<Cow<'_, str>>()? {
            let value = members.next_value()?;
            let deciding = ["model", "stream"].into_iter().chain(CallKind::ALL.map(CallKind::prompt));
            let Some(name) = deciding.into_iter().find(|name| key == *name) else { continue };
            if self.0.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::duplicate_field(name));
            }
            self.0.push((name, value));
        }
        Ok(self)
    }
}

/// The task, or what is wrong with the line.
pub(super) fn parse(content: &str, defaults: Defaults<'_>) -> Result<Task, String> {
    let mut members: Members = serde_json::from_str(content).map_err(|error| not_json(&error))?;
    let custom_id = text(&mut members, "custom_id")?;
    let named = text(&mut members, "model")?;
    let url = text(&mut members, "url")?.map(|url| known_url(&url)).transpose()?;
    let (body, named) = if let Some(body) = members.remove("request_body") {
        refuse_others(&members, "custom_id, model, request_body, url")?;
        (body, named)
    } else if let Some(body) = members.remove("body") {
        if text(&mut members, "method")?.is_some_and(|method| method != "POST") {
            return Err("method must be \"POST\"".to_owned());
        }
        refuse_others(&members, "custom_id, method, url, body")?;
        let inside = model_of(&body)?;
        (body, named.or(inside))
    } else {
        (serde_json::value::to_raw_value(&members).map_err(|error| error.to_string())?, named)
    };
    finish(Parts { custom_id, named, url, body }, defaults)
}

/// A chat of one message.
pub(super) fn chat(prompt: &str, defaults: Defaults<'_>) -> Result<Task, String> {
    let body = serde_json::json!({ "messages": [{ "role": "user", "content": prompt }] });
    let body = serde_json::value::to_raw_value(&body).map_err(|error| error.to_string())?;
    finish(Parts { custom_id: None, named: None, url: None, body }, defaults)
}

struct Parts {
    custom_id: Option<String>,
    named: Option<String>,
    url: Option<&'static str>,
    body: Box<RawValue>,
}

fn finish(parts: Parts, defaults: Defaults<'_>) -> Result<Task, String> {
    let Parts { custom_id, named, url, body } = parts;
    let kind = kind_of(&body, url)?;
    let model = named
        .or_else(|| defaults.model.map(str::to_owned))
        .ok_or("names no model; add \"model\" to it, or give --model")?;
    let custom_id = match (custom_id, defaults.custom_id) {
        (Some(own), _) => own,
        (None, Some(given)) => given.to_owned(),
        (None, None) => format!("line-{}", defaults.line),
    };
    if custom_id.len() > MAX_CUSTOM_ID {
        return Err(format!("custom_id has {} bytes; at most {MAX_CUSTOM_ID} are allowed", custom_id.len()));
    }
    Ok(Task { custom_id, model, url, kind, body })
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

fn text(members: &mut Members, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = members.remove(name) else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) if text.is_empty() => Err(format!("{name} must not be empty")),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("{name} must be a text")),
    }
}

fn refuse_others(members: &Members, known: &str) -> Result<(), String> {
    match members.keys().next() {
        Some(name) => Err(format!("unknown field \"{name}\"; known are {known}")),
        None => Ok(()),
    }
}

/// With or without `/v1`, as the API takes it.
fn known_url(url: &str) -> Result<&'static str, String> {
    let urls = CallKind::answered().map(CallKind::path);
    let found = urls.clone().find(|known| *known == url || known.strip_prefix("/v1") == Some(url));
    found.ok_or_else(|| format!("url \"{url}\" is none of {}", Vec::from_iter(urls).join(", ")))
}

fn kind_of(body: &RawValue, url: Option<&'static str>) -> Result<&'static str, String> {
    if !body.get().starts_with('{') {
        return Err("the request body must be an object".to_owned());
    }
    let probe: Probe<'_> = serde_json::from_str(body.get()).map_err(|error| {
        let text = error.to_string();
        format!("the request body has a {}", text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what))
    })?;
    if probe.get("stream") == Some("true") {
        return Err("stream must not be true: a task's answer is stored whole".to_owned());
    }
    let inferred = || CallKind::meant_by(|prompt| probe.get(prompt).is_some()).map(CallKind::path);
    let prompts = || CallKind::by_meaning().map(CallKind::prompt).collect::<Vec<_>>().join(", ");
    let none = || format!("the request body has none of {}", prompts());
    url.or_else(inferred).ok_or_else(none)
}

fn model_of(body: &RawValue) -> Result<Option<String>, String> {
    if !body.get().starts_with('{') {
        return Err("body must be an object".to_owned());
    }
    let probe: Probe<'_> = serde_json::from_str(body.get()).map_err(|error| error.to_string())?;
    match probe.get("model").map(serde_json::from_str::<String>) {
        None => Ok(None),
        Some(Ok(model)) if !model.is_empty() => Ok(Some(model)),
        Some(_) => Err("model must be a text that is not empty".to_owned()),
    }
}
