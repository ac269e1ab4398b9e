//! Holds: what comes over the file: the environment, and over that the flags.
//!
//! The only place of the project that reads the environment for settings.

use std::ffi::OsString;

use crate::document::{Document, Entry, Node, Table, Value};
use crate::fault::{Collector, Place};
use crate::schema::Schema;
use crate::setting::{Kind, Setting};

/// Environment variables, by name. An empty one counts as not set.
#[derive(Default, Clone)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The variables of this process whose names begin with `prefix`; those that are not UTF-8 are nobody's settings.
    pub fn of_process(prefix: &str) -> Self {
        let text = |(name, value): (OsString, OsString)| name.into_string().ok().zip(value.into_string().ok());
        std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(prefix)).collect()
    }

    /// The value of a variable that is set and not empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

// Values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Schema {
    /// Puts variables over what the file says.
    pub fn apply_environment(&self, document: &mut Document, environment: &Environment, faults: &Collector) {
        for (name, value) in &environment.0 {
            if value.is_empty() {
                continue;
            }
            if let Some(path) = self.path_of_variable(name, faults) {
                self.set(&mut document.root, &path, value, &Place::Variable(name.clone()));
            }
        }
    }

    /// Puts a flag of the command line over everything else.
    pub fn apply_flag(&self, document: &mut Document, setting: &Setting, name: &'static str, value: &str) {
        self.set(&mut document.root, setting.path, value, &Place::Flag(name));
    }

    /// Replaces one setting; a secret replaces its other form as well, so that the two never meet.
    fn set(&self, root: &mut Table, path: &str, text: &str, at: &Place) {
        let (parents, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = root;
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            let node = Node { at: at.clone(), value: Value::Table(Table::new()) };
            let entry = table.entry(name.to_owned()).or_insert_with(|| Entry { key_at: at.clone(), node });
            let Value::Table(inner) = &mut entry.node.value else { return };
            table = inner;
        }
        let plain = key.strip_suffix("_file").unwrap_or(key);
        let setting = self.settings().find(|setting| setting.path == path);
        if setting.is_none_or(|setting| matches!(setting.kind, Kind::Secret)) {
            table.remove(plain);
            table.remove(&format!("{plain}_file"));
        }
        let node = Node { at: at.clone(), value: typed(setting, text, at) };
        table.insert(key.to_owned(), Entry { key_at: at.clone(), node });
    }
}

/// A variable is text; what it must be decides how it is read. What cannot be read so stays text and fails later.
fn typed(setting: Option<&Setting>, text: &str, at: &Place) -> Value {
    let text = text.trim();
    match setting.map(|setting| setting.kind) {
        Some(Kind::Integer { .. }) if text.parse::<i128>().is_ok() => Value::Number(text.to_owned()),
        Some(Kind::Flag) if text == "true" || text == "1" => Value::Flag(true),
        Some(Kind::Flag) if text == "false" || text == "0" => Value::Flag(false),
        Some(Kind::TextList | Kind::ListOf(_)) => {
            let item = |part: &str| Node { at: at.clone(), value: Value::Text(part.trim().to_owned()) };
            Value::List(text.split(',').filter(|part| !part.trim().is_empty()).map(item).collect())
        }
        _ => Value::Text(text.to_owned()),
    }
}
