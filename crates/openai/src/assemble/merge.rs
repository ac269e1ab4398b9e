//! Holds: members of an object that grow from chunk to chunk.

use std::fmt::Write;

/// Bytes that a member takes beside its text, for the bound.
const MEMBER_BYTES: usize = 64;

/// What a later value does to an earlier one. Null never undoes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Texts and lists go on where they stopped; of anything else the last counts.
    Join,
    /// The last counts.
    Last,
    /// The first that is not empty counts: names that some servers repeat in every chunk.
    First,
}

/// The members, in the order in which they first came.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

#[derive(Debug)]
struct Member {
    key: Box<str>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Null,
    /// A string without its quotes, escapes as they came.
    Text(String),
    /// An array without its brackets.
    List(String),
    Other(String),
}

impl Value {
    fn of(json: &str) -> Self {
        match json.as_bytes() {
            b"null" => Self::Null,
            [b'"', .., b'"'] => Self::Text(within(json).to_owned()),
            [b'[', .., b']'] => Self::List(within(json).trim().to_owned()),
            _ => Self::Other(json.to_owned()),
        }
    }

    fn says_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            Self::List(_) | Self::Other(_) => false,
        }
    }

    /// The bytes that were added. `None` when a text and a list cannot be one.
    fn join(&mut self, json: &str) -> Option<usize> {
        match (&mut *self, json.as_bytes()) {
            (_, b"null") => Some(0),
            (Self::Text(text), [b'"', .., b'"']) => {
                text.push_str(within(json));
                Some(json.len() - 2)
            }
            (Self::List(list), [b'[', .., b']']) => {
                let items = within(json).trim();
                if !items.is_empty() {
                    if !list.is_empty() {
                        list.push(',');
                    }
                    list.push_str(items);
                }
                Some(items.len() + 1)
            }
            (Self::Text(_), [b'[', ..]) | (Self::List(_), [b'"', ..]) => None,
            _ => Some(self.replace(json)),
        }
    }

    fn replace(&mut self, json: &str) -> usize {
        if json == "null" || self.is(json) {
            return 0;
        }
        *self = Self::of(json);
        json.len()
    }

    fn is(&self, json: &str) -> bool {
        match self {
            Self::Null => json == "null",
            Self::Text(text) => json.starts_with('"') && within(json) == text,
            Self::List(list) => json.starts_with('[') && within(json).trim() == list,
            Self::Other(other) => other == json,
        }
    }

    fn write(&self, out: &mut String) {
        let (open, text, close) = match self {
            Self::Null => ("", "null", ""),
            Self::Text(text) => ("\"", text.as_str(), "\""),
            Self::List(list) => ("[", list.as_str(), "]"),
            Self::Other(other) => ("", other.as_str(), ""),
        };
        out.push_str(open);
        out.push_str(text);
        out.push_str(close);
    }
}

/// What stands between the first and the last byte, which are ASCII.
fn within(json: &str) -> &str {
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
}

impl Members {
    /// Takes in a member. Returns the bytes that it added, or `None` when it cannot follow what came before.
    pub fn take(&mut self, key: &str, json: &str, rule: Rule) -> Option<usize> {
        let Some(member) = self.0.iter_mut().find(|member| &*member.key == key) else {
            self.0.push(Member { key: key.into(), value: Value::of(json) });
            return Some(key.len() + json.len() + MEMBER_BYTES);
        };
        match rule {
            Rule::Join => member.value.join(json),
            Rule::Last => Some(member.value.replace(json)),
            Rule::First if member.value.says_nothing() => Some(member.value.replace(json)),
            Rule::First => Some(0),
        }
    }

    /// Adds to a text that is there, escapes as they come.
    pub fn grow(&mut self, key: &str, inner: &str) -> Option<()> {
        let member = self.0.iter_mut().find(|member| &*member.key == key)?;
        let Value::Text(text) = &mut member.value else { return None };
        text.push_str(inner);
        Some(())
    }

    /// Whether the member is there and is neither null nor an empty text.
    pub fn says(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| !value.says_nothing())
    }

    /// Whether the member is exactly this.
    pub fn is(&self, key: &str, json: &str) -> bool {
        self.value(key).is_some_and(|value| value.is(json))
    }

    /// Writes `,"key":value`, if the member is there.
    pub fn write_one(&self, key: &str, out: &mut String) {
        self.write_as(key, key, out);
    }

    /// The same under another name.
    pub fn write_as(&self, key: &str, name: &str, out: &mut String) {
        if let Some(value) = self.value(key) {
            write_key(name, out);
            value.write(out);
        }
    }

    /// Writes all members but these as `,"key":value`.
    pub fn write_all(&self, but: &[&str], out: &mut String) {
        for member in self.0.iter().filter(|member| !but.contains(&&*member.key)) {
            write_key(&member.key, out);
            member.value.write(out);
        }
    }

    /// The members as an object.
    pub fn write_object(&self, out: &mut String) {
        let start = out.len();
        self.write_all(&[], out);
        close_object(start, out);
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|member| &*member.key == key).map(|member| &member.value)
    }
}

/// Makes an object of the members that were written from `start` on, each behind a comma.
pub(super) fn close_object(start: usize, out: &mut String) {
    out.replace_range(start..(start + 1).min(out.len()), "{");
    out.push('}');
}

fn write_key(key: &str, out: &mut String) {
    out.push(',');
    // A server's member names may need escapes.
    if key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(key);
        out.push('"');
    } else {
        // Writing to a string does not fail.
        let _written = write!(out, "{}", serde_json::Value::from(key));
    }
    out.push(':');
}
