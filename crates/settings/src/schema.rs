//! Holds: the one list of a program's settings, and the search for keys that are not on it.

use std::collections::BTreeSet;

use crate::document::{Document, Node, Table, Value};
use crate::fault::{Collector, FaultKind, Place};
use crate::nearest::nearest;
use crate::setting::Setting;

/// Every setting of a program.
#[derive(Debug)]
pub struct Schema {
    /// What the names of its variables begin with: with `APP_`, `server.listen` is `APP_SERVER__LISTEN`.
    pub prefix: &'static str,
    /// What prints the example, as a person types it.
    pub example_command: &'static str,
    /// The sections that are there once, in the order of the example.
    pub sections: &'static [Section],
    /// Every `[[section]]` of which there may be several; its settings are named from the entry.
    pub lists: &'static [Section],
    /// Sections of other versions: known, so that nobody looks for a typing error.
    pub later: &'static [&'static str],
}

/// A section of settings.
#[derive(Debug)]
pub struct Section {
    /// As in its brackets.
    pub name: &'static str,
    /// In the order of the example.
    pub settings: &'static [&'static Setting],
}

impl Schema {
    /// The settings that are there once, and can therefore come from the environment.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &'static Setting> {
        self.sections.iter().flat_map(|section| section.settings.iter().copied())
    }

    /// Adds a fault for every key that is no setting, and for every section that is not of its form.
    pub fn check_keys(&self, document: &Document, faults: &Collector) {
        let tree = Known::of(self.settings());
        for (key, entry) in &document.root {
            if self.later.contains(&key.as_str()) {
                faults.add(&entry.key_at, FaultKind::Unknown, format!("[{key}] is not in this version"));
            } else if let Some(list) = self.lists.iter().find(|list| list.name == key) {
                self.check_list(list, &entry.node, faults);
            } else if tree.children("").any(|section| section == key) {
                self.check_table(&tree, key, &entry.node, faults);
            } else {
                let sections = self.sections.iter().chain(self.lists).map(|section| section.name);
                let message = self.unknown(key, nearest(key, sections).or_else(|| tree.elsewhere(key)));
                faults.add(&entry.key_at, FaultKind::Unknown, message);
            }
        }
    }

    /// Adds a fault for a variable that looks like a setting's and is none; gives the path of one that is.
    pub(crate) fn path_of_variable(&self, name: &str, faults: &Collector) -> Option<String> {
        let rest = name.strip_prefix(self.prefix)?;
        let tree = Known::of(self.settings());
        let path = rest.to_lowercase().replace("__", ".");
        if tree.0.contains(&path) {
            return Some(path);
        }
        let is_meant = rest.contains("__") || tree.0.iter().any(|known| known.replace('.', "_") == path);
        if is_meant {
            let flat = path.replace('.', "_");
            let same = tree.0.iter().find(|known| known.replace('.', "_") == flat).map(String::as_str);
            let known = same.or_else(|| nearest(&path, tree.0.iter().map(String::as_str)));
            let message = match known {
                Some(known) => format!("is no setting; did you mean {}?", self.variable(known)),
                None if self.lists.iter().any(|list| path.starts_with(list.name)) => {
                    let lists: BTreeSet<&str> = self.lists.iter().map(|list| list.name).collect();
                    let lists = Vec::from_iter(lists);
                    let lists = match lists.split_last() {
                        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
                        _ => lists.join(""),
                    };
                    format!("{lists} can only be set in the file")
                }
                None => format!("is no setting; `{}` shows all", self.example_command),
            };
            faults.add(&Place::Variable(name.to_owned()), FaultKind::Unknown, message);
        }
        None
    }

    /// `server.listen` → `APP_SERVER__LISTEN`.
    fn variable(&self, path: &str) -> String {
        format!("{}{}", self.prefix, path.to_uppercase().replace('.', "__"))
    }

    fn check_list(&self, list: &Section, node: &Node, faults: &Collector) {
        let tree = Known::of(list.settings.iter().copied());
        let name = list.name;
        let Value::List(items) = &node.value else {
            let message = format!("{name} is a list: write [[{name}]] with two brackets");
            return faults.add(&node.at, FaultKind::Value, message);
        };
        for item in items {
            match &item.value {
                Value::Table(table) => self.check_entries(&tree, "", table, faults),
                _ => faults.add(&item.at, FaultKind::Value, format!("{name} is a list of tables: write [[{name}]]")),
            }
        }
    }

    fn check_table(&self, tree: &Known, path: &str, node: &Node, faults: &Collector) {
        match &node.value {
            Value::Table(table) => self.check_entries(tree, path, table, faults),
            other => {
                let message = format!("{path} is a table: write [{path}], not {}", other.described());
                faults.add(&node.at, FaultKind::Value, message);
            }
        }
    }

    fn check_entries(&self, tree: &Known, parent: &str, table: &Table, faults: &Collector) {
        for (key, entry) in table {
            let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
            if tree.0.contains(&path) {
                continue;
            }
            if let Some(list) = self.lists.iter().find(|list| list.name == path) {
                self.check_list(list, &entry.node, faults);
                continue;
            }
            if tree.children(&path).next().is_some() {
                self.check_table(tree, &path, &entry.node, faults);
            } else {
                let lists = self.lists.iter().filter_map(|list| list.name.strip_prefix(parent)?.strip_prefix('.'));
                let near = nearest(key, tree.children(parent).chain(lists)).or_else(|| tree.elsewhere(key));
                faults.add(&entry.key_at, FaultKind::Unknown, self.unknown(&path, near));
            }
        }
    }

    fn unknown(&self, key: &str, near: Option<&str>) -> String {
        match near {
            Some(near) => format!("unknown key {key}; did you mean {near}?"),
            None => format!("unknown key {key}; `{}` shows all", self.example_command),
        }
    }
}

/// Dotted names of settings, and of the file variants of secrets.
struct Known(BTreeSet<String>);

impl Known {
    fn of(settings: impl Iterator<Item = &'static Setting>) -> Self {
        Self(settings.flat_map(|setting| [Some(setting.path.to_owned()), setting.file_path()]).flatten().collect())
    }

    /// The next part of every name below `parent`; the empty parent is the root.
    fn children(&self, parent: &str) -> impl Iterator<Item = &str> {
        let below = move |path: &'_ String| -> Option<usize> {
            if parent.is_empty() {
                Some(0)
            } else {
                path.strip_prefix(parent)?.starts_with('.').then_some(parent.len() + 1)
            }
        };
        self.0.iter().filter_map(move |path| {
            let start = below(path)?;
            path.get(start..)?.split('.').next()
        })
    }

    /// A setting of another section with exactly this last part.
    fn elsewhere(&self, key: &str) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|path| path.rsplit('.').next() == Some(key))
    }
}
