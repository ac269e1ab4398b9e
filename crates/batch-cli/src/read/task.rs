//! Holds: a task as it was read, and its two forms on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One task. Its body is passed on as it was written.
#[derive(Debug)]
pub(crate) struct Task {
    pub custom_id: String,
    pub model: String,
    /// With `/v1`; none when it follows from the body.
    pub url: Option<&'static str>,
    /// The url that the body is meant for, or the one that was given.
    pub kind: &'static str,
    pub body: Box<RawValue>,
}

#[derive(Serialize)]
struct Inline<'a> {
    custom_id: &'a str,
    model: &'a str,
    request_body: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

#[derive(Serialize)]
struct FileLine<'a> {
    custom_id: &'a str,
    method: &'a str,
    url: &'a str,
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

impl Task {
    /// As `POST /v1/batches` takes it.
    pub(crate) fn inline(&self) -> serde_json::Result<Vec<u8>> {
        let Self { custom_id, model, url, body, .. } = self;
        serde_json::to_vec(&Inline { custom_id, model, request_body: body, url: *url })
    }

    /// As a line of an OpenAI batch file, with its newline.
    pub(crate) fn file_line(&self) -> serde_json::Result<Vec<u8>> {
        let body = self.body_with_model()?;
        let line = FileLine { custom_id: &self.custom_id, method: "POST", url: self.kind, body: &body };
        let mut line = serde_json::to_vec(&line)?;
        // Only white space can be a bare line break in JSON; a template may have written some.
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line.push(b'\n');
        Ok(line)
    }

    /// The task's model counts, whatever the body says.
    fn body_with_model(&self) -> serde_json::Result<Box<RawValue>> {
        let text = self.body.get();
        let inside: Model<'_> = serde_json::from_str(text)?;
        let named = inside.model.map(|raw| serde_json::from_str::<String>(raw.get()).ok());
        if named.as_ref().is_some_and(|named| named.as_ref() == Some(&self.model)) {
            return Ok(self.body.clone());
        }
        let model = serde_json::value::to_raw_value(&self.model)?;
        if named.is_some() {
            let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text)?;
            members.insert("model".to_owned(), model);
            return serde_json::value::to_raw_value(&members);
        }
        let rest = text.trim_start().strip_prefix('{').unwrap_or_default();
        let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
        RawValue::from_string(format!("{{\"model\":{model}{comma}{rest}"))
    }
}
