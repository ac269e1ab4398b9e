//! Holds: what a configuration says, as far as two of them are compared.
//!
//! Values are kept as digests only, so that no secret is held here or shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sha2::{Digest as _, Sha256};

use crate::document::{Document, Node, Value};
use crate::fault::Collector;
use crate::reader::Scope;
use crate::schema::Schema;
use crate::setting::{Preset, Setting};

/// What a configuration says.
#[derive(Clone, Default)]
pub struct Written {
    /// Names of the sections that stand in the file.
    sections: BTreeSet<String>,
    text: [u8; 32],
    settings: BTreeMap<&'static str, [u8; 32]>,
}

// Digests of secrets are nobody's to read either.
impl std::fmt::Debug for Written {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Written({} settings)", self.settings.len())
    }
}

impl Written {
    /// `file` is what the file's text says alone, `whole` the same with environment and flags over it.
    pub fn of(schema: &Schema, text: &str, file: &Document, whole: &Document) -> Self {
        let faults = Collector::default();
        let scope = Scope::root(whole, &faults);
        let settings = schema.settings().map(|setting| (setting.path, digest(&scope, setting)));
        let lists = schema.lists.iter().filter(|list| list.name.contains('.'));
        let settings = settings.chain(lists.map(|list| (list.name, digest_of(&scope, list.name)))).collect();
        let sections = file.root.keys().cloned().collect();
        Self { sections, text: Sha256::digest(text).into(), settings }
    }

    /// The file has no setting at all.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Whether this section stands in the file.
    pub fn has(&self, section: &str) -> bool {
        self.sections.contains(section)
    }

    /// Whether the file had this text.
    pub fn is_of(&self, text: &str) -> bool {
        self.text == <[u8; 32]>::from(Sha256::digest(text))
    }

    /// The settings that are not the same in `other`; a list inside a section counts as one, other lists are not among them.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differs =
            |(path, value): (&&'static str, &[u8; 32])| (other.settings.get(path) != Some(value)).then_some(*path);
        self.settings.iter().filter_map(differs).collect()
    }
}

/// Of what the setting is in effect; one that is written as its default is the same as one that is not written.
fn digest(scope: &Scope<'_>, setting: &Setting) -> [u8; 32] {
    let mut text = String::new();
    let file = setting.file_path().and_then(|path| scope.find(&path));
    match (scope.find(setting.path), file) {
        (Some(node), _) => write_value(&node.value, &mut text),
        (None, Some(Node { value: Value::Text(path), .. })) => {
            // One that cannot be read is a fault, which is told elsewhere.
            let secret = fs::read_to_string(path).unwrap_or_default();
            write_text(secret.trim_end_matches(['\r', '\n']), &mut text);
        }
        (None, _) => write_preset(&setting.preset, &mut text),
    }
    Sha256::digest(text).into()
}

/// Of a whole list.
fn digest_of(scope: &Scope<'_>, list: &str) -> [u8; 32] {
    let mut text = String::new();
    if let Some(node) = scope.find(list) {
        write_value(&node.value, &mut text);
    }
    Sha256::digest(text).into()
}

fn write_preset(preset: &Preset, into: &mut String) {
    match preset {
        Preset::Required { .. } | Preset::Absent { .. } | Preset::Follows { .. } => {}
        Preset::Text(text) => write_text(text, into),
        Preset::Integer(number) => into.push_str(&number.to_string()),
        Preset::Flag(flag) => into.push_str(&flag.to_string()),
        Preset::Decimal(text) => into.push_str(text),
        Preset::List(items) => items.iter().for_each(|item| write_text(item, into)),
    }
}

fn write_value(value: &Value, into: &mut String) {
    match value {
        Value::Text(text) => write_text(text, into),
        Value::Number(text) => into.push_str(&text.replace('_', "")),
        Value::Flag(flag) => into.push_str(&flag.to_string()),
        Value::List(items) => items.iter().for_each(|item| write_value(&item.value, into)),
        Value::Table(table) => table.iter().for_each(|(key, entry)| {
            write_text(key, into);
            write_value(&entry.node.value, into);
        }),
        Value::Date => into.push_str("date"),
    }
}

/// With its length, so that two lists of texts are never taken for one another.
fn write_text(text: &str, into: &mut String) {
    into.push_str(&format!("{}:{text}", text.len()));
}
