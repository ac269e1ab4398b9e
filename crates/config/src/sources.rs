//! Holds: where settings come from: a file, the environment and flags, the later over the earlier.

use std::path::PathBuf;

use batchin_settings::{Document, Environment, Setting};

use super::schema::SCHEMA;
use super::{database, server};

/// Everything that settings are read from.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// `--config`; the embedded defaults without.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Environment,
    /// Flags of the command line.
    pub flags: Flags,
}

/// The flags that stand for a setting.
#[derive(Default, Clone)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data`
    pub data: Option<String>,
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--roles`, separated by commas
    pub roles: Option<String>,
}

// A database's address carries its password.
impl std::fmt::Debug for Flags {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listen, data, database_url, roles } = self;
        let has_database_url = database_url.is_some();
        write!(out, "Flags {{ {listen:?}, {data:?}, database_url: {has_database_url}, {roles:?} }}")
    }
}

/// Puts flags over everything else.
pub(super) fn apply_flags(document: &mut Document, flags: &Flags) {
    let given: [(&Setting, &'static str, &Option<String>); 4] = [
        (&server::LISTEN, "--listen", &flags.listen),
        (&server::DATA_DIR, "--data", &flags.data),
        (&database::URL, "--database-url", &flags.database_url),
        (&server::ROLES, "--roles", &flags.roles),
    ];
    for (setting, name, value) in given {
        if let Some(value) = value {
            SCHEMA.apply_flag(document, setting, name, value);
        }
    }
}
