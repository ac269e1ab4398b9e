//! Holds: the top-level members of a JSON object as they lie in the body.
//!
//! One validating pass that borrows; a member's range is where its value stands. Nothing here knows what a member
//! means.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::ControlFlow, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deepest nesting accepted in a body. Deeper JSON has no use here and makes recursive parsers behind us fail.
pub const MAX_DEPTH: usize = 128;

/// The body is not one JSON object. Line and column count from 1; the column counts bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// The bytes are not UTF-8.
    #[error("the body is not valid UTF-8")]
    Utf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// The grammar is broken at this place.
    #[error("the body is not valid JSON")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Valid so far, but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// More than [`MAX_DEPTH`] arrays and objects within each other.
    #[error("the body is nested too deeply")]
    TooDeep,
}

/// Calls `found` with each member in order; a value has no white space around it. `Break` ends the pass early and
/// leaves the rest unchecked.
pub fn each_member<'a>(
    text: &'a str,
    found: impl FnMut(Cow<'a, str>, &'a RawValue) -> ControlFlow<()>,
) -> Result<(), InvalidJson> {
    let mut stopped = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = deserializer.deserialize_map(Members { found, stopped: &mut stopped });
    match outcome.and_then(|()| deserializer.end()) {
        _ if stopped => Ok(()),
        Ok(()) => Ok(()),
        Err(error) if error.is_data() => Err(InvalidJson::NotAnObject),
        Err(error) => Err(InvalidJson::Syntax { line: error.line(), column: error.column() }),
    }
}

/// Calls `found` with each item of a JSON array in order.
pub(crate) fn each_item<'a, T: Deserialize<'a>>(text: &'a str, found: impl FnMut(T)) -> Result<(), InvalidJson> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = deserializer.deserialize_seq(Items { found, item: PhantomData });
    outcome.and_then(|()| deserializer.end()).map_err(|error| {
        if error.is_data() {
            return InvalidJson::NotAnObject;
        }
        InvalidJson::Syntax { line: error.line(), column: error.column() }
    })
}

/// Where `part`, a slice of `whole`, lies in it.
pub(crate) fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// Whether arrays and objects nest deeper than [`MAX_DEPTH`]. The text must be valid JSON already.
pub(crate) fn too_deep(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// The offset of the quote that closes the string whose content starts at `from`.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += step;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// Valid JSON without the white space around its marks.
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(quote) = rest.find('"') {
        out.extend(rest[..quote].split_ascii_whitespace());
        let end = (end_of_string(rest.as_bytes(), quote + 1) + 1).min(rest.len());
        out.push_str(&rest[quote..end]);
        rest = &rest[end..];
    }
    out.extend(rest.split_ascii_whitespace());
    out
}

/// A string as JSON, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    if is_plain(text) {
        return ["\"", text, "\""].concat();
    }
    serde_json::Value::from(text).to_string()
}

/// Whether this valid JSON is the string, spelled as [`quoted`] spells it.
pub(crate) fn is_quoted(json: &str, text: &str) -> bool {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if is_plain(text) { inner == Some(text) } else { json == quoted(text) }
}

/// Whether a string stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

struct Members<'s, F> {
    found: F,
    stopped: &'s mut bool,
}

/// A member's name.
#[derive(Deserialize)]
pub(crate) struct Key<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl<'a, F> Visitor<'a> for Members<'_, F>
where
    F: FnMut(Cow<'a, str>, &'a RawValue) -> ControlFlow<()>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            if (self.found)(key, value).is_break() {
                *self.stopped = true;
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Items<T, F> {
    found: F,
    item: PhantomData<T>,
}

impl<'a, T: Deserialize<'a>, F: FnMut(T)> Visitor<'a> for Items<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'a>>(mut self, mut seq: S) -> Result<(), S::Error> {
        while let Some(item) = seq.next_element()? {
            (self.found)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_where_it_says_nothing() {
        let json = "{ \"a \\\" b\" : [ 1.50 , true,\n\"\\\\\" ],\t\"é\": {} }";
        assert_eq!(compact(json), r#"{"a \" b":[1.50,true,"\\"],"é":{}}"#);
    }

    fn keys(text: &str) -> Result<Vec<(String, String)>, InvalidJson> {
        let mut all = Vec::new();
        each_member(text, |key, value| {
            assert_eq!(&text[range_in(text, value.get())], value.get());
            all.push((key.into_owned(), value.get().to_owned()));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    #[test]
    fn values_are_slices_of_the_body() {
        let found = keys("{ \"a\" : 1.50 ,\n\"mo\\u0064el\":\"x\\n\", \"l\": [ 1, 2 ] }\n").unwrap();
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", "1.50"), ("model", "\"x\\n\""), ("l", "[ 1, 2 ]")]);
    }

    #[test]
    fn faults_have_a_place() {
        assert_eq!(keys("{\"a\":1,\n\"b\" 2}"), Err(InvalidJson::Syntax { line: 2, column: 5 }));
        assert_eq!(keys("[1]"), Err(InvalidJson::NotAnObject));
        assert_eq!(keys("\"text\""), Err(InvalidJson::NotAnObject));
        assert!(matches!(keys("{} x"), Err(InvalidJson::Syntax { line: 1, .. })));
        assert!(matches!(keys(""), Err(InvalidJson::Syntax { .. })));
    }

    #[test]
    fn strings_are_quoted_as_json_has_them() {
        for text in ["", "m", "org/model:7b", "é", "a\"b", "a\\b", "a\nb", "\u{7f}", "\u{1}"] {
            let json = quoted(text);
            assert_eq!(json, serde_json::to_string(text).unwrap());
            assert!(is_quoted(&json, text), "{json}");
            assert!(!is_quoted(&format!("\"{text}x\""), text) && !is_quoted("\"", text) && !is_quoted("null", text));
        }
        assert!(!is_quoted("\"\\u006d\"", "m"), "another spelling");
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(!too_deep(&nested(MAX_DEPTH)));
        assert!(too_deep(&nested(MAX_DEPTH + 1)));
        assert!(!too_deep(&format!("[\"\\\"{}\\\\\"]", "[".repeat(500))));
    }
}
