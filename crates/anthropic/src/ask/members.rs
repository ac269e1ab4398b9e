//! Holds: objects, lists and texts as they lie in a body.

use std::{borrow::Cow, fmt};

use batchin_openai::InvalidJson;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object, in order.
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The members of a body.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, InvalidJson> {
        let text = std::str::from_utf8(body).map_err(|error| InvalidJson::Utf8 { at: error.valid_up_to() })?;
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                return InvalidJson::NotAnObject;
            }
            InvalidJson::Syntax { line: error.line(), column: error.column() }
        })
    }

    /// `None` when it is no object.
    pub(super) fn of(json: &'a RawValue) -> Option<Self> {
        serde_json::from_str(json.get()).ok()
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

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listed;
        impl<'a> Visitor<'a> for Listed {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Members<'a>, M::Error> {
                let mut members = Vec::new();
                while let Some(Word(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Listed)
    }
}

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

/// JSON without the white space around its marks.
pub(super) fn compact(json: &RawValue) -> String {
    let mut out = String::with_capacity(json.get().len());
    let mut rest = json.get();
    while let Some(quote) = rest.find('"') {
        let (marks, text) = rest.split_at(quote);
        push_marks(&mut out, marks);
        let end = end_of_text(text);
        out.push_str(&text[..end]);
        rest = &text[end..];
    }
    push_marks(&mut out, rest);
    out
}

fn push_marks(out: &mut String, marks: &str) {
    out.extend(marks.split_ascii_whitespace());
}

/// Where the text that this begins with ends, after its quote.
fn end_of_text(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_where_it_says_nothing() {
        let raw: &RawValue = serde_json::from_str("{ \"a \\\" b\" : [ 1.50 , true,\n\"\\\\\" ],\t\"é\": {} }").unwrap();
        assert_eq!(compact(raw), r#"{"a \" b":[1.50,true,"\\"],"é":{}}"#);
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let members = Members::of_body(br#"{"a":1,"\u0061":2,"b":null}"#).unwrap();
        assert_eq!(members.get("a").map(RawValue::get), Some("2"));
        assert!(members.get("b").is_none());
    }
}
