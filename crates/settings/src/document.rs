//! Holds: a configuration as it was written: a tree of values, each with its place.
//!
//! Knows TOML's grammar and no setting. Numbers keep their text, so that prices are never rounded through a float.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::fault::{Collector, FaultKind, Place};

/// A configuration as it was written.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub(crate) root: Table,
}

/// Keys in alphabetical order.
pub(crate) type Table = BTreeMap<String, Entry>;

/// A key and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key_at: Place,
    pub node: Node,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub at: Place,
    pub value: Value,
}

/// A value as written.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    /// Decimal text, with or without a point or an exponent.
    Number(String),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    Date,
}

impl Value {
    /// What a person calls it.
    pub(crate) fn described(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Date => "a date",
        }
    }
}

impl Document {
    /// Reads TOML as far as it can be read; what cannot goes to `faults`.
    pub fn parse(text: &str, faults: &Collector) -> Self {
        let lines = Lines::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let place = lines.place(error.span().unwrap_or(0..0));
            faults.add(&place, FaultKind::Syntax, format!("not valid TOML: {}", error.message()));
        }
        Self { root: table(root.get_ref(), &lines) }
    }

    /// Whether it has a section of this name.
    pub fn has(&self, section: &str) -> bool {
        self.root.contains_key(section)
    }

    /// Takes over the sections of `other`, in place of its own of the same name.
    pub fn extend(&mut self, other: Self) {
        self.root.extend(other.root);
    }
}

fn table(source: &DeTable<'_>, lines: &Lines<'_>) -> Table {
    let entry = |key: &Spanned<_>, value| Entry { key_at: lines.place(key.span()), node: node(value, lines) };
    source.iter().map(|(key, value)| (key.get_ref().to_string(), entry(key, value))).collect()
}

fn node(source: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let value = match source.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Number(in_decimal(number.as_str(), number.radix())),
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(item, lines)).collect()),
        DeValue::Table(inner) => Value::Table(table(inner, lines)),
    };
    Node { at: lines.place(source.span()), value }
}

/// TOML also has `0xff`; too large for 64 bits stays as written and fails as a number later.
fn in_decimal(digits: &str, radix: u32) -> String {
    if radix == 10 {
        return digits.to_owned();
    }
    i64::from_str_radix(digits, radix).map_or_else(|_| digits.to_owned(), |number| number.to_string())
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn place(&self, span: Range<usize>) -> Place {
        let offset = span.start.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        Place::File { line, column }
    }
}
