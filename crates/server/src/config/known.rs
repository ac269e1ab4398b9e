//! Holds: the one list of settings, and the search for keys that are not on it.

use std::collections::BTreeSet;

use super::document::{Node, Table, Value};
use super::fault::{Collector, FaultKind, Place};
use super::setting::Setting;
use super::{
    batches, database, engine, files, models, nearest, observability, server, shutdown, upstreams, users, webhooks,
};

/// A `[section]` of settings that are there once.
pub(crate) struct Section {
    pub name: &'static str,
    pub settings: &'static [&'static Setting],
}

/// Every section, in the order of the example.
pub(crate) const SECTIONS: &[Section] = &[
    Section { name: "server", settings: server::SETTINGS },
    Section { name: "shutdown", settings: shutdown::SETTINGS },
    Section { name: "database", settings: database::SETTINGS },
    Section { name: "blobs", settings: database::BLOBS_SETTINGS },
    Section { name: "users", settings: users::SETTINGS },
    Section { name: "keys", settings: users::KEYS_SETTINGS },
    Section { name: "batches", settings: batches::SETTINGS },
    Section { name: "files", settings: files::SETTINGS },
    Section { name: "webhooks", settings: webhooks::SETTINGS },
    Section { name: "engine", settings: engine::SETTINGS },
    Section { name: "log", settings: observability::LOG_SETTINGS },
    Section { name: "telemetry", settings: observability::TELEMETRY_SETTINGS },
    Section { name: "metrics", settings: observability::METRICS_SETTINGS },
];

/// Every `[[section]]` of which there may be several; its settings are named from the entry.
pub(crate) const LISTS: &[Section] = &[
    Section { name: "upstreams", settings: upstreams::SETTINGS },
    Section { name: "models", settings: models::SETTINGS },
];

/// Sections of other versions: known, so that nobody looks for a typing error.
const LATER_SECTIONS: &[&str] = &["stripe", "usdc", "audit"];

/// The settings that are there once, and can therefore come from the environment.
pub(crate) fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings.iter().copied())
}

/// Adds a fault for every key of `root` that is no setting, and for every section that is not of its form.
pub(crate) fn check_keys(root: &Table, faults: &Collector) {
    let tree = Known::of(settings());
    for (key, entry) in root {
        if LATER_SECTIONS.contains(&key.as_str()) {
            faults.add(&entry.key_at, FaultKind::Unknown, format!("[{key}] is not in this version"));
        } else if let Some(list) = LISTS.iter().find(|list| list.name == key) {
            check_list(list, &entry.node, faults);
        } else if tree.children("").any(|section| section == key) {
            check_table(&tree, key, &entry.node, faults);
        } else {
            let sections = SECTIONS.iter().chain(LISTS).map(|section| section.name);
            let message = unknown(key, nearest::name(key, sections).or_else(|| tree.elsewhere(key)));
            faults.add(&entry.key_at, FaultKind::Unknown, message);
        }
    }
}

/// Adds a fault for a variable that looks like a setting's and is none; gives the path of one that is.
pub(crate) fn path_of_variable(name: &str, faults: &Collector) -> Option<String> {
    let rest = name.strip_prefix("BATCHIN_")?;
    let tree = Known::of(settings());
    let path = rest.to_lowercase().replace("__", ".");
    if tree.0.contains(&path) {
        return Some(path);
    }
    let is_meant = rest.contains("__") || tree.0.iter().any(|known| known.replace('.', "_") == path);
    if is_meant {
        let flat = path.replace('.', "_");
        let same = tree.0.iter().find(|known| known.replace('.', "_") == flat).map(String::as_str);
        let known = same.or_else(|| nearest::name(&path, tree.0.iter().map(String::as_str)));
        let message = match known {
            Some(known) => format!("is no setting; did you mean {}?", super::setting::variable(known)),
            None if path.starts_with("models") || path.starts_with("upstreams") => {
                "models and upstreams can only be set in the file".to_owned()
            }
            None => "is no setting; `batchin config example` shows all".to_owned(),
        };
        faults.add(&Place::Variable(name.to_owned()), FaultKind::Unknown, message);
    }
    None
}

fn check_list(list: &Section, node: &Node, faults: &Collector) {
    let tree = Known::of(list.settings.iter().copied());
    let name = list.name;
    let Value::List(items) = &node.value else {
        let message = format!("{name} is a list: write [[{name}]] with two brackets");
        return faults.add(&node.at, FaultKind::Value, message);
    };
    for item in items {
        match &item.value {
            Value::Table(table) => check_entries(&tree, "", table, faults),
            _ => faults.add(&item.at, FaultKind::Value, format!("{name} is a list of tables: write [[{name}]]")),
        }
    }
}

fn check_table(tree: &Known, path: &str, node: &Node, faults: &Collector) {
    match &node.value {
        Value::Table(table) => check_entries(tree, path, table, faults),
        other => {
            let message = format!("{path} is a table: write [{path}], not {}", other.described());
            faults.add(&node.at, FaultKind::Value, message);
        }
    }
}

fn check_entries(tree: &Known, parent: &str, table: &Table, faults: &Collector) {
    for (key, entry) in table {
        let path = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        if tree.0.contains(&path) {
            continue;
        }
        if tree.children(&path).next().is_some() {
            check_table(tree, &path, &entry.node, faults);
        } else {
            let near = nearest::name(key, tree.children(parent)).or_else(|| tree.elsewhere(key));
            faults.add(&entry.key_at, FaultKind::Unknown, unknown(&path, near));
        }
    }
}

fn unknown(key: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("unknown key {key}; did you mean {near}?"),
        None => format!("unknown key {key}; `batchin config example` shows all"),
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
