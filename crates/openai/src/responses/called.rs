//! Holds: what a chat calls a request's tools, and what the request calls them.
//!
//! Chats know functions alone, in one list. A custom tool is a function there whose only argument is its input; a function
//! of a namespace has the namespace in its name.

use std::collections::HashMap;

/// The member of a custom tool's arguments that is its input.
pub(super) const INPUT: &str = "input";

/// A tool as the request knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Its input is a plain text.
    pub(super) is_custom: bool,
}

/// The tools that a chat does not call as the request does, by the name that the chat has for them.
#[derive(Debug, Default)]
pub(super) struct CalledNames(HashMap<String, Called>);

/// What a chat calls a tool of a namespace.
pub(super) fn name_in_chat(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None => name.to_owned(),
        Some(namespace) if namespace.ends_with("__") => [namespace, name].concat(),
        Some(namespace) => [namespace, "__", name].concat(),
    }
}

impl CalledNames {
    pub(super) fn add(&mut self, name_in_chat: &str, called: Called) {
        if called.is_custom || called.namespace.is_some() {
            self.0.insert(name_in_chat.to_owned(), called);
        }
    }

    /// What the request calls it. What it does not know is a function, as models make up names.
    pub(super) fn find(&self, name_in_chat: &str) -> Called {
        self.0.get(name_in_chat).cloned().unwrap_or_else(|| Called {
            name: name_in_chat.to_owned(),
            namespace: None,
            is_custom: false,
        })
    }
}
