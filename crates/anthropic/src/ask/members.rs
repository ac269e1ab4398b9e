//! Holds: objects, lists and texts as they lie in a body.

use std::{borrow::Cow, ops::ControlFlow};

use batchin_openai::{InvalidJson, each_member};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The members of an object, in order.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of a body.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, InvalidJson> {
        let text = std::str::from_utf8(body).map_err(|error| InvalidJson::Utf8 { at: error.valid_up_to() })?;
        Self::of_text(text)
    }

    fn of_text(text: &'a str) -> Result<Self, InvalidJson> {
        let mut members = Vec::new();
        each_member(text, |key, value| {
            members.push((key, value));
            ControlFlow::Continue(())
        })?;
        Ok(Self(members))
    }

    /// `None` when it is no object.
    pub(super) fn of(json: &'a RawValue) -> Option<Self> {
        Self::of_text(json.get()).ok()
    }

    /// The member of this name. `null` counts as absent; of two, the last one counts, and it alone goes on.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.iter().rfind(|(key, _)| *key == name)?;
        (value.get() != "null").then_some(value)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }
}

/// A text that is copied only where it has escapes.
#[derive(Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

/// The items of a list. `None` when it is none.
pub(super) fn items(json: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json.get()).ok()
}

/// The text that this is, decoded, to be compared with words. `None` when it is no text.
pub(super) fn word(json: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(json.get()).ok().map(|Word(text)| text)
}

/// What stands between the quotes of a text, with its escapes. `None` when it is no text.
pub(super) fn inner(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_members_counts() {
        let members = Members::of_body(br#"{"a":1,"\u0061":2,"b":null}"#).unwrap();
        assert_eq!(members.get("a").map(RawValue::get), Some("2"));
        assert!(members.get("b").is_none());
    }
}
