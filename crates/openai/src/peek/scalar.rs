//! Holds: the single values that `peek` reads, each with the message that says how to mend it.
//!
//! A value is judged by its JSON spelling, so that no message repeats what the client wrote.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::InvalidRequest;

/// Longest accepted model name in bytes. Registry names are far shorter; the bound keeps labels and rows small.
const MAX_MODEL_BYTES: usize = 256;

pub(super) fn text(name: &str, raw: Option<&RawValue>) -> Result<String, InvalidRequest> {
    let value = optional_text(name, raw)?
        .ok_or_else(|| InvalidRequest::at(name, format!("`{name}` is required: give it as a string")))?;
    if value.is_empty() {
        return Err(InvalidRequest::at(name, format!("`{name}` must not be empty")));
    }
    if value.len() > MAX_MODEL_BYTES {
        return Err(InvalidRequest::at(name, format!("`{name}` must be at most {MAX_MODEL_BYTES} bytes")));
    }
    Ok(value)
}

pub(super) fn optional_text(name: &str, raw: Option<&RawValue>) -> Result<Option<String>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    let value = serde_json::from_str(raw.get());
    value.map(Some).map_err(|_| InvalidRequest::at(name, format!("`{name}` must be a string")))
}

pub(super) fn flag(name: &str, raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    match raw.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(InvalidRequest::at(name, format!("`{name}` must be true or false"))),
    }
}

/// A whole number from 1 to `most`.
pub(super) fn count(name: &str, raw: Option<&RawValue>, most: u32) -> Result<Option<u32>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    match raw.get().parse::<u32>() {
        Ok(value) if (1..=most).contains(&value) => Ok(Some(value)),
        _ => Err(InvalidRequest::at(name, format!("`{name}` must be a whole number from 1 to {most}"))),
    }
}

pub(super) fn temperature(raw: Option<&RawValue>) -> Result<Option<f64>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(Some(value)),
        _ => Err(InvalidRequest::at("temperature", "`temperature` must be a number from 0 to 2")),
    }
}

pub(super) fn include_usage(raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    #[derive(Deserialize)]
    struct StreamOptions<'a> {
        #[serde(borrow)]
        include_usage: Option<&'a RawValue>,
    }
    let Some(raw) = raw else { return Ok(false) };
    // A struct would also be read from an array.
    let options = raw.get().starts_with('{').then(|| serde_json::from_str::<StreamOptions<'_>>(raw.get()));
    match options {
        Some(Ok(options)) => flag("stream_options.include_usage", options.include_usage),
        Some(Err(_)) => Err(InvalidRequest::at(
            "stream_options.include_usage",
            "`stream_options.include_usage` stands in the body more than once; send it once",
        )),
        None => Err(InvalidRequest::at("stream_options", "`stream_options` must be an object")),
    }
}
