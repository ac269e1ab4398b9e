//! Holds: what one setting is.
//!
//! A setting is declared once, in its section's file, by [`settings!`](crate::settings). Its default, its range, its line in the example, its name in
//! the environment and the check for unknown keys all come from that declaration.

/// One value that can be configured.
#[derive(Debug)]
pub struct Setting {
    /// Dotted name: from the root (`server.listen`), or from the entry where its section is a list.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it is when nothing is said.
    pub preset: Preset,
    /// What it is for, in a person's words; printed above it in the example.
    pub doc: &'static str,
}

/// What a setting may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// Never printed; `NAME_file` may name a file that holds it.
    Secret,
    /// Of a file or folder.
    Path,
    /// `IP:PORT`.
    Address,
    /// An address with one of these schemes.
    Url(&'static [&'static str]),
    /// A whole number, both bounds included.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any texts.
    TextList,
    /// Any of these words.
    ListOf(&'static [&'static str]),
    /// An exact decimal of at most six places.
    Decimal,
}

/// What a setting is when nothing is said.
#[derive(Debug, Clone, Copy)]
pub enum Preset {
    /// It must be said.
    Required {
        /// TOML value shown in the example.
        example: &'static str,
    },
    /// Nothing.
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
    /// This text.
    Text(&'static str),
    /// This number.
    Integer(u64),
    /// On or off.
    Flag(bool),
    /// These texts.
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

/// Declares settings as constants together with the list of them: what is not on the list cannot be read.
#[macro_export]
macro_rules! settings {
    (
        $listed:vis const $list:ident: &[&Setting];
        $($visible:vis const $name:ident: Setting = $setting:expr;)+
    ) => {
        $listed const $list: &[&$crate::Setting] = &[$(&$name),+];
        $($visible const $name: $crate::Setting = $setting;)+
    };
}
