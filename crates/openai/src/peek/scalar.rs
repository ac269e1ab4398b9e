//! Holds: the single values that `peek` reads, each with the message that says how to mend it.
//!
//! A value is judged by its JSON spelling, so that no message repeats what the client wrote.

use std::ops::{ControlFlow, RangeInclusive};

use batchin_domain::text::is_storable;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::InvalidRequest;
use crate::{members::each_member, steering::folds_to, tier::Tier, wanted::Encoding};

/// Longest accepted model name in bytes. Registry names are far shorter; the bound keeps labels and rows small.
const MAX_MODEL_BYTES: usize = 256;

pub(super) fn text(name: &str, raw: Option<&RawValue>) -> Result<String, InvalidRequest> {
    unread_text(name, raw)?;
    let Some(raw) = raw else {
        return Err(InvalidRequest::at(name, format!("`{name}` is required: give it as a string")));
    };
    let Ok(value) = serde_json::from_str::<String>(raw.get()) else {
        let message = format!("`{name}` has a \\u escape that is half a character; send whole characters");
        return Err(InvalidRequest::at(name, message));
    };
    if value.is_empty() {
        return Err(InvalidRequest::at(name, format!("`{name}` must not be empty")));
    }
    if value.len() > MAX_MODEL_BYTES {
        return Err(InvalidRequest::at(name, format!("`{name}` must be at most {MAX_MODEL_BYTES} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(InvalidRequest::at(name, format!("`{name}` must not have control characters")));
    }
    Ok(value)
}

/// Refuses what is no string, by its first byte: a text that goes on as it came may hold whatever its server takes.
pub(super) fn unread_text(name: &str, raw: Option<&RawValue>) -> Result<(), InvalidRequest> {
    match raw {
        Some(raw) if !raw.get().starts_with('"') => Err(InvalidRequest::at(name, format!("`{name}` must be a string"))),
        Some(_) | None => Ok(()),
    }
}

/// What is to be seen, in at most so many Unicode scalars.
pub(super) fn prompt_to_see(raw: Option<&RawValue>, most: usize) -> Result<String, InvalidRequest> {
    const NAME: &str = "prompt";
    unread_text(NAME, raw)?;
    let wrong = |message: String| Err(InvalidRequest::at(NAME, message));
    let Some(raw) = raw else { return wrong("`prompt` is required: say what is to be seen, as a string".to_owned()) };
    let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
        return wrong("`prompt` has a \\u escape that is half a character; send whole characters".to_owned());
    };
    let length = text.chars().count();
    if text.trim().is_empty() {
        return wrong("`prompt` must say what is to be seen".to_owned());
    }
    if !is_storable(&text) {
        return wrong("`prompt` must not contain U+0000".to_owned());
    }
    if length > most {
        return wrong(format!("`prompt` has {length} characters; at most {most}"));
    }
    Ok(text)
}

pub(super) fn flag(name: &str, raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    match raw.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(InvalidRequest::at(name, format!("`{name}` must be true or false"))),
    }
}

/// The tier of service that is asked for.
pub(super) fn tier(raw: Option<&RawValue>) -> Result<Option<Tier>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    let tier = Tier::asked(raw.get());
    let unknown = || {
        let message = format!("`service_tier` must be one of {}; or leave it out", Tier::words());
        InvalidRequest::at("service_tier", message)
    };
    tier.map(Some).ok_or_else(unknown)
}

/// A whole number of this range.
pub(super) fn count(
    name: &str,
    raw: Option<&RawValue>,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    match whole_number(raw.get()) {
        Some(value) if range.contains(&value) => Ok(Some(value)),
        _ => {
            let (least, most) = range.into_inner();
            Err(InvalidRequest::at(name, format!("`{name}` must be a whole number from {least} to {most}")))
        }
    }
}

/// The whole number from 0 that this JSON is, also when it is spelled `16.0`, as clients with one kind of number do. What
/// is above the largest `u32` counts as that.
pub(crate) fn whole_number(text: &str) -> Option<u32> {
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && value.trunc() == *value)?;
    if value.abs() < 1.0 {
        return Some(0);
    }
    if value >= f64::from(u32::MAX) {
        return Some(u32::MAX);
    }
    format!("{value:.0}").parse().ok()
}

pub(super) fn temperature(raw: Option<&RawValue>) -> Result<Option<f64>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(Some(value)),
        _ => Err(InvalidRequest::at("temperature", "`temperature` must be a number from 0 to 2")),
    }
}

/// How vectors are to be written. What else some servers know (`int8`, `binary`) has another meaning at each, and could not
/// be made of what others give.
pub(super) fn encoding(raw: Option<&RawValue>) -> Result<Encoding, InvalidRequest> {
    match raw.map(RawValue::get) {
        None | Some("\"float\"") => Ok(Encoding::Float),
        Some("\"base64\"") => Ok(Encoding::Base64),
        Some(_) => {
            Err(InvalidRequest::at("encoding_format", "`encoding_format` must be \"float\" or \"base64\", or left out"))
        }
    }
}

pub(super) fn include_usage(raw: Option<&RawValue>) -> Result<bool, InvalidRequest> {
    const NAME: &str = "stream_options.include_usage";
    let Some(raw) = raw else { return Ok(false) };
    let (mut wanted, mut fault) = (None, None);
    let listed = each_member(raw.get(), |key, value| {
        match key.as_ref() {
            "include_usage" if wanted.is_none() => {
                wanted = Some(value);
                return ControlFlow::Continue(());
            }
            "include_usage" => fault = Some(format!("`{NAME}` stands in the body more than once; send it once")),
            key if folds_to(key, &["include_usage"]).is_some() => {
                fault = Some(format!("a member differs from `{NAME}` by case alone; leave it out"));
            }
            _ => return ControlFlow::Continue(()),
        }
        ControlFlow::Break(())
    });
    if let Some(fault) = fault {
        return Err(InvalidRequest::at(NAME, fault));
    }
    listed.map_err(|_| InvalidRequest::at("stream_options", "`stream_options` must be an object"))?;
    flag(NAME, wanted.filter(|wanted| wanted.get() != "null"))
}

/// Whether the stream options ask for counts in every chunk. What else stands there is the model server's business.
pub(super) fn continuous_usage(raw: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct StreamOptions<'a> {
        #[serde(borrow)]
        continuous_usage_stats: Option<&'a RawValue>,
    }
    let options = raw.and_then(|raw| serde_json::from_str::<StreamOptions<'_>>(raw.get()).ok());
    options.and_then(|options| options.continuous_usage_stats).is_some_and(|wanted| wanted.get() == "true")
}
