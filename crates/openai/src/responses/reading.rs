//! Holds: single values of a request, each with the sentence that says how to mend it.
//!
//! A value is judged by its JSON spelling, so that no sentence repeats what the client wrote.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::fault::Fault;
use crate::{
    heard::text_of,
    members::{each_item, each_member},
};

/// What an object has under these names; `null` counts as absent, and of a name that stands there twice the last one
/// counts. `None` where it is no object.
pub(super) fn members_of<'a, const N: usize>(json: &'a str, names: [&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    let mut found = [None; N];
    each_member(json, |key, value| {
        if let Some(at) = names.iter().position(|name| *name == key) {
            found[at] = (value.get() != "null").then_some(value);
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    Some(found)
}

/// Calls `read` with each item of a list until one is at fault.
pub(super) fn try_each<'a>(
    list: &'a RawValue,
    must: &'static str,
    mut read: impl FnMut(usize, &'a RawValue) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (mut at, mut fault) = (0, None);
    let listed = each_item(list.get(), |item: &'a RawValue| {
        if fault.is_none() {
            fault = read(at, item).err().map(|fault| fault.within_item(at));
        }
        at += 1;
    });
    match fault {
        Some(fault) => Err(fault),
        None => listed.map_err(|_| Fault::at("", must)),
    }
}

/// Whether it is a text, however it is spelled.
pub(super) fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// A text as it lies in the body.
pub(super) fn text<'a>(path: &str, value: Option<&'a RawValue>) -> Result<Option<&'a RawValue>, Fault> {
    match value {
        Some(value) if !is_text(value) => Err(Fault::at(path, "must be a string")),
        value => Ok(value),
    }
}

/// A text that must be there.
pub(super) fn needed_text<'a>(path: &str, value: Option<&'a RawValue>) -> Result<&'a RawValue, Fault> {
    text(path, value)?.ok_or_else(|| Fault::at(path, "is required: give it as a string"))
}

/// Longest name of a tool or namespace; OpenAI's have 64 letters. A namespace's stands in the name of each of its tools.
const MAX_NAME_BYTES: usize = 256;

/// A name that must be there.
pub(super) fn needed_name(path: &str, value: Option<&RawValue>) -> Result<String, Fault> {
    let name = text_of(needed_text(path, value)?.get()).unwrap_or_default();
    if name.is_empty() {
        return Err(Fault::at(path, "must not be empty"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Fault::at(path, "must have at most 256 bytes"));
    }
    Ok(name.into_owned())
}

/// Whether it is said to be so.
pub(super) fn flag(path: &str, value: Option<&RawValue>) -> Result<Option<bool>, Fault> {
    match value.map(RawValue::get) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Fault::at(path, "must be true or false")),
    }
}

/// What is between the quotes of a text, escapes and all.
pub(super) fn inner(text: &RawValue) -> &str {
    let json = text.get();
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json)
}
