//! Holds: how urgent work is.

use std::{fmt, str::FromStr};

use crate::{listed, stored};

listed! {
    /// Scheduling class, most urgent first. Interactive requests come before every batch.
    #[derive(PartialOrd, Ord)]
    pub enum Class {
        /// A person waits for it.
        Interactive => "interactive",
        /// A batch at the standard price.
        High => "high",
        /// A batch that may wait.
        Low => "low",
        /// A batch that uses only what the machines have idle.
        Fill => "fill",
    }
}

impl Class {
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
