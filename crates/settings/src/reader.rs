//! Holds: typed reading of settings out of a tree of values.
//!
//! A value that is not as declared becomes a fault and reading goes on with the default, so that one pass finds every
//! fault. What was read is only used when no fault was found.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use crate::document::{Document, Node, Table, Value};
use crate::fault::{Collector, FaultKind, Place};
use crate::setting::{Kind, Preset, Setting};

/// A secret file larger than this is some other file.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// One table, from which settings are read.
pub struct Scope<'a> {
    table: &'a Table,
    /// What precedes a setting's path in messages: empty, or such as `servers[0].`.
    prefix: String,
    /// Where the table begins: the place of what is missing in it.
    pub at: Place,
    /// Where to tell of what is wrong in it.
    pub faults: &'a Collector,
}

impl<'a> Scope<'a> {
    /// The whole document.
    pub fn root(document: &'a Document, faults: &'a Collector) -> Self {
        Self { table: &document.root, prefix: String::new(), at: Place::Default, faults }
    }

    /// The entries of an array of tables, by its dotted name, in order.
    pub fn entries(&self, name: &str) -> Vec<Scope<'a>> {
        let Some(Value::List(nodes)) = self.find(name).map(|node| &node.value) else {
            return Vec::new();
        };
        let scope = |(index, node): (usize, &'a Node)| match &node.value {
            Value::Table(table) => {
                let prefix = format!("{name}[{index}].");
                Some(Scope { table, prefix, at: node.at.clone(), faults: self.faults })
            }
            _ => None,
        };
        nodes.iter().enumerate().filter_map(scope).collect()
    }

    /// Where `setting` was written, or else where its table begins.
    pub fn place(&self, setting: &Setting) -> Place {
        self.find(setting.path).map_or_else(|| self.at.clone(), |node| node.at.clone())
    }

    /// Adds a fault about `setting`.
    pub fn fault(&self, setting: &Setting, kind: FaultKind, message: impl AsRef<str>) {
        self.complain(setting, &self.place(setting), kind, message.as_ref());
    }

    /// Whether it was written at all.
    pub fn is_set(&self, setting: &Setting) -> bool {
        let file = setting.file_path();
        self.find(setting.path).or_else(|| self.find(&file?)).is_some()
    }

    /// The text as written, without a word about what is wrong with it.
    pub fn peek_text(&self, setting: &Setting) -> Option<String> {
        match &self.find(setting.path)?.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The text of a `Text`, `Path`, `OneOf` or `Url` setting.
    pub fn text(&self, setting: &Setting) -> String {
        self.optional_text(setting).unwrap_or_default()
    }

    /// The same; none where nothing is said and there is no default.
    pub fn optional_text(&self, setting: &Setting) -> Option<String> {
        let Some(node) = self.find(setting.path) else {
            return self.preset_text(setting);
        };
        let Value::Text(text) = &node.value else {
            self.wrong_type(setting, node, "a text in quotes");
            return self.preset_text(setting);
        };
        if text.trim().is_empty() {
            self.complain(setting, &node.at, FaultKind::Value, "must not be empty");
        } else if let Kind::OneOf(allowed) = setting.kind
            && !allowed.contains(&text.as_str())
        {
            let message = format!("\"{text}\" is none of {}", allowed.join(", "));
            self.complain(setting, &node.at, FaultKind::Value, &message);
        }
        Some(text.clone())
    }

    /// A path, if there is one.
    pub fn optional_path(&self, setting: &Setting) -> Option<PathBuf> {
        self.optional_text(setting).map(PathBuf::from)
    }

    /// A path to a file that must be readable now.
    pub fn readable_file(&self, setting: &Setting) -> Option<PathBuf> {
        let path = self.optional_path(setting)?;
        if let Err(error) = fs::File::open(&path) {
            let message = format!("cannot read {}: {}", path.display(), reason(&error));
            self.fault(setting, FaultKind::Value, message);
        }
        Some(path)
    }

    /// The address of an `Address` setting.
    pub fn address(&self, setting: &Setting) -> SocketAddr {
        let text = self.text(setting);
        text.parse().unwrap_or_else(|_| {
            let message = format!("\"{text}\" is no address of the form 127.0.0.1:8080 or [::1]:8080");
            self.fault(setting, FaultKind::Value, message);
            SocketAddr::from(([127, 0, 0, 1], 8080))
        })
    }

    /// The URL of a `Url` setting, if there is one that can be used.
    pub fn optional_url(&self, setting: &Setting) -> Option<Url> {
        let text = self.optional_text(setting)?;
        let Kind::Url(schemes) = setting.kind else { return None };
        match Url::parse(&text) {
            Ok(url) if !schemes.contains(&url.scheme()) => {
                let message = format!("must begin with {}", prefixes(schemes));
                self.fault(setting, FaultKind::Value, message);
                None
            }
            Ok(url) if url.host().is_none() && url.scheme() != "unix" => {
                self.fault(setting, FaultKind::Value, "has no host");
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                self.fault(setting, FaultKind::Value, format!("is no URL: {error}"));
                None
            }
        }
    }

    /// An `Integer` setting that has a default or must be given.
    pub fn integer(&self, setting: &Setting) -> u64 {
        self.optional_integer(setting).unwrap_or_default()
    }

    /// An `Integer` setting that counts something in memory.
    pub fn size(&self, setting: &Setting) -> usize {
        usize::try_from(self.integer(setting)).unwrap_or(usize::MAX)
    }

    /// An `Integer` setting whose range fits 32 bits.
    pub fn count(&self, setting: &Setting) -> u32 {
        u32::try_from(self.integer(setting)).unwrap_or(u32::MAX)
    }

    /// The same, if there is one.
    pub fn optional_count(&self, setting: &Setting) -> Option<u32> {
        self.optional_integer(setting).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// An `Integer` setting, if there is one.
    pub fn optional_integer(&self, setting: &Setting) -> Option<u64> {
        let preset = match setting.preset {
            Preset::Integer(number) => Some(number),
            _ => None,
        };
        let Some(node) = self.find(setting.path) else {
            self.require(setting);
            return preset;
        };
        let Kind::Integer { min, max } = setting.kind else { return preset };
        let number = match &node.value {
            Value::Number(text) => text.parse::<i128>().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type(setting, node, "a whole number");
            return preset;
        };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                let message = format!("{number} is out of range: {min} to {max}");
                self.complain(setting, &node.at, FaultKind::Value, &message);
                preset
            }
        }
    }

    /// A `Flag` setting.
    pub fn flag(&self, setting: &Setting) -> bool {
        let preset = matches!(setting.preset, Preset::Flag(true));
        match self.find(setting.path) {
            None => preset,
            Some(Node { value: Value::Flag(flag), .. }) => *flag,
            Some(node) => {
                self.wrong_type(setting, node, "true or false, without quotes");
                preset
            }
        }
    }

    /// A list of texts, each with its place; empty when the setting is absent.
    pub fn list(&self, setting: &Setting) -> Vec<(String, Place)> {
        let Some(node) = self.find(setting.path) else {
            self.require(setting);
            return match setting.preset {
                Preset::List(items) => items.iter().map(|item| ((*item).to_owned(), Place::Default)).collect(),
                _ => Vec::new(),
            };
        };
        let Value::List(items) = &node.value else {
            self.wrong_type(setting, node, "a list of texts in square brackets");
            return Vec::new();
        };
        items.iter().filter_map(|item| self.list_item(setting, item)).collect()
    }

    fn list_item(&self, setting: &Setting, item: &Node) -> Option<(String, Place)> {
        let Value::Text(text) = &item.value else {
            self.wrong_type(setting, item, "texts in quotes");
            return None;
        };
        if let Kind::ListOf(allowed) = setting.kind
            && !allowed.contains(&text.as_str())
        {
            let message = format!("\"{text}\" is none of {}", allowed.join(", "));
            self.complain(setting, &item.at, FaultKind::Value, &message);
            return None;
        }
        Some((text.clone(), item.at.clone()))
    }

    /// A `Decimal` setting, turned from its text into what `parse` makes of it: no float in between.
    pub fn decimal<T, E: std::fmt::Display>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(node) = self.find(setting.path) else {
            self.require(setting);
            return match setting.preset {
                Preset::Decimal(text) => parse(text).ok(),
                _ => None,
            };
        };
        let (Value::Number(text) | Value::Text(text)) = &node.value else {
            self.wrong_type(setting, node, "a number");
            return None;
        };
        parse(&text.replace('_', ""))
            .inspect_err(|error| self.complain(setting, &node.at, FaultKind::Value, &error.to_string()))
            .ok()
    }

    /// A secret, from its own key or from the file that `NAME_file` names.
    pub fn secret(&self, setting: &Setting) -> Option<SecretString> {
        let from_file = setting.file_path().and_then(|path| self.find(&path));
        let direct = self.find(setting.path);
        if let (Some(_), Some(node)) = (direct, from_file) {
            let message = format!("is set here and as {}_file; keep one", setting.path);
            self.complain(setting, &node.at, FaultKind::Value, &message);
        }
        if let Some(node) = direct {
            return match &node.value {
                Value::Text(text) if !text.trim().is_empty() => Some(SecretString::from(text.as_str())),
                Value::Text(_) => {
                    self.complain(setting, &node.at, FaultKind::Value, "must not be empty");
                    None
                }
                _ => {
                    self.wrong_type(setting, node, "a text in quotes");
                    None
                }
            };
        }
        self.secret_in(setting, from_file?)
    }

    fn secret_in(&self, setting: &Setting, node: &Node) -> Option<SecretString> {
        let Value::Text(path) = &node.value else {
            self.wrong_type(setting, node, "the path of a file, in quotes");
            return None;
        };
        let problem = match fs::read(path) {
            Err(error) => format!("cannot read {path}: {}", reason(&error)),
            Ok(bytes) if bytes.len() > MAX_SECRET_BYTES => format!("{path} is too large to be a secret"),
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) if text.trim().is_empty() => format!("{path} is empty"),
                Ok(text) => return Some(SecretString::from(text.trim_end_matches(['\r', '\n']))),
                Err(_) => format!("{path} is not UTF-8 text"),
            },
        };
        self.complain(setting, &node.at, FaultKind::Value, &problem);
        None
    }

    fn preset_text(&self, setting: &Setting) -> Option<String> {
        self.require(setting);
        match setting.preset {
            Preset::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }

    /// A fault when the setting must be given and is not.
    fn require(&self, setting: &Setting) {
        if let Preset::Required { example } = setting.preset
            && self.find(setting.path).is_none()
        {
            let message = format!("is missing; for example {example}");
            self.complain(setting, &self.at, FaultKind::Missing, &message);
        }
    }

    fn wrong_type(&self, setting: &Setting, node: &Node, expected: &str) {
        let message = format!("must be {expected}, not {}", node.value.described());
        self.complain(setting, &node.at, FaultKind::Value, &message);
    }

    fn complain(&self, setting: &Setting, place: &Place, kind: FaultKind, message: &str) {
        self.faults.add(place, kind, format!("{}{} {message}", self.prefix, setting.path));
    }

    /// What was written at a dotted name.
    pub(crate) fn find(&self, path: &str) -> Option<&'a Node> {
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = self.table;
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            match &table.get(name)?.node.value {
                Value::Table(inner) => table = inner,
                _ => return None,
            }
        }
        table.get(last).map(|entry| &entry.node)
    }
}

/// What the operating system said, without "(os error 2)".
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        kind => kind.to_string(),
    }
}

/// `["http", "unix"]` → `http:// or unix:/`.
fn prefixes(schemes: &[&str]) -> String {
    let parts: Vec<String> = schemes
        .iter()
        .map(|scheme| if *scheme == "unix" { "unix:/".to_owned() } else { format!("{scheme}://") })
        .collect();
    parts.join(" or ")
}
