//! Holds: what a configuration says, as far as two of them are compared.
//!
//! Values are kept as digests only, so that no secret is held here or shown.

use std::collections::BTreeMap;
use std::fs;

use sha2::{Digest as _, Sha256};

use super::document::{Node, Table, Value};
use super::fault::Collector;
use super::known;
use super::reader::Scope;
use super::setting::{Preset, Setting};

/// What a configuration says.
#[derive(Clone, Default)]
pub struct Written {
    /// The file has no setting at all.
    pub is_empty: bool,
    /// Whether `[[models]]` stand in it, rather than those that are served when none do.
    pub has_models: bool,
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
    /// `file` is what the file says alone, `root` the same with environment and flags over it.
    pub(super) fn of(text: &str, file: &Table, root: &Table) -> Self {
        let faults = Collector::default();
        let scope = Scope::root(root, &faults);
        let settings = known::settings().map(|setting| (setting.path, digest(&scope, setting))).collect();
        let has_models = file.contains_key("models");
        Self { is_empty: file.is_empty(), has_models, text: Sha256::digest(text).into(), settings }
    }

    /// Whether the file had this text.
    pub fn is_of(&self, text: &str) -> bool {
        self.text == <[u8; 32]>::from(Sha256::digest(text))
    }

    /// The settings that are not the same in `other`; models and upstreams are not among them.
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
        Value::Table(table) => table.values().for_each(|entry| write_value(&entry.node.value, into)),
        Value::Date => into.push_str("date"),
    }
}

/// With its length, so that two lists of texts are never taken for one another.
fn write_text(text: &str, into: &mut String) {
    into.push_str(&format!("{}:{text}", text.len()));
}
