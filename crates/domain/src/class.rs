//! Holds: how urgent work is.

use std::{fmt, str::FromStr};

use crate::stored;

/// Scheduling class, most urgent first. Interactive requests come before every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A person waits for it.
    Interactive,
    /// A batch at the standard price.
    High,
    /// A batch that may wait.
    Low,
    /// A batch that uses only what the machines have idle.
    Fill,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::High, Self::Low, Self::Fill];

    /// Lower-case name, as in metrics and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::High => "high",
            Self::Low => "low",
            Self::Fill => "fill",
        }
    }

    /// Position in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

stored! {
    /// What a batch may ask for.
    #[derive(PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Priority {
        /// Before other batches.
        High = 0,
        /// May wait.
        Low = 1,
        /// Only idle capacity.
        Fill = 2,
    }
}

impl Priority {
    /// The scheduling class of a batch with this priority.
    pub const fn class(self) -> Class {
        match self {
            Self::High => Class::High,
            Self::Low => Class::Low,
            Self::Fill => Class::Fill,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class().name())
    }
}

impl FromStr for Priority {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "high" => Ok(Self::High),
            "low" => Ok(Self::Low),
            "fill" => Ok(Self::Fill),
            _ => Err(()),
        }
    }
}
