//! Holds: what is said of JSON that is not what it should be.

use serde_json::error::Category;

/// Whether it is an array: serde takes the members of an object in their order from one too.
pub(crate) fn is_array(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'[')
}

/// What a parser says.
pub(crate) struct Fault {
    /// Without the place, which is one in the text that the parser was given, and without what we call our own things.
    pub what: String,
    /// It is no JSON at all, rather than JSON of another shape.
    pub is_syntax: bool,
}

impl Fault {
    pub(crate) fn of(cause: &serde_json::Error) -> Self {
        let text = cause.to_string();
        // serde says `… at line 1 column 2`.
        let (what, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
        let what = what.split(", expected struct ").next().unwrap_or_default().to_owned();
        Self { what, is_syntax: cause.classify() != Category::Data }
    }
}
