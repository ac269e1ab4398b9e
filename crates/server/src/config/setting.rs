//! Holds: what one setting is.
//!
//! A setting is declared once, in its section's file. Its default, its range, its line in `config example`, its name in
//! the environment and the check for unknown keys all come from that declaration.

/// One value that can be configured.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Dotted name: from the root (`server.listen`), or from the entry for `[[upstreams]]` and `[[models]]`.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it is when nothing is said.
    pub preset: Preset,
    /// What it is for, in a person's words; printed above it by `config example`.
    pub doc: &'static str,
}

/// What a setting may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    /// Never printed; `NAME_file` may name a file that holds it.
    Secret,
    Path,
    /// `IP:PORT`.
    Address,
    /// An address with one of these schemes.
    Url(&'static [&'static str]),
    /// A whole number, both bounds included.
    Integer {
        min: u64,
        max: u64,
    },
    Flag,
    OneOf(&'static [&'static str]),
    TextList,
    ListOf(&'static [&'static str]),
    /// An exact decimal of at most six places.
    Decimal,
}

/// What a setting is when nothing is said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    Required {
        /// TOML value shown in the example.
        example: &'static str,
    },
    Absent {
        /// TOML value shown, commented out, in the example.
        example: &'static str,
    },
    /// Computed from another setting, so that the two move together.
    Follows {
        /// TOML value that the other setting's default gives.
        example: &'static str,
        /// The dotted name of the other setting.
        other: &'static str,
    },
    Text(&'static str),
    Integer(u64),
    Flag(bool),
    List(&'static [&'static str]),
    /// Decimal text, as written in TOML.
    Decimal(&'static str),
}

impl Setting {
    /// The dotted name of the variant that names a file, for secrets.
    pub(crate) fn file_path(&self) -> Option<String> {
        matches!(self.kind, Kind::Secret).then(|| format!("{}_file", self.path))
    }
}

/// `server.listen` → `BATCHIN_SERVER__LISTEN`.
pub(crate) fn variable(path: &str) -> String {
    format!("BATCHIN_{}", path.to_uppercase().replace('.', "__"))
}
