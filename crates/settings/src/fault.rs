//! Holds: what is wrong with a configuration, and where.
//!
//! Faults are collected, never returned one at a time: a person fixes a file in one go. No fault shows a secret's value.

use std::cell::RefCell;
use std::fmt;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the configuration file; both count from 1.
    File {
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// In this flag of the command line.
    Flag(&'static str),
    /// Nowhere: the default.
    Default,
}

/// What sort of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Not TOML.
    Syntax,
    /// No such setting.
    Unknown,
    /// Wrong type, out of range, or not readable.
    Value,
    /// A setting that must be given is not.
    Missing,
    /// Names something that is not there, or names it twice.
    Reference,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What sort.
    pub kind: FaultKind,
    /// What is wrong and what would be right, in a person's words.
    pub message: String,
}

impl Fault {
    /// `FILE:LINE:COLUMN: message`, or the variable's or flag's name in place of the file.
    pub fn describe(&self, file: &str) -> String {
        match &self.place {
            Place::File { line, column } => format!("{file}:{line}:{column}: {}", self.message),
            Place::Variable(name) => format!("{name}: {}", self.message),
            Place::Flag(name) => format!("{name}: {}", self.message),
            Place::Default => format!("{file}: {}", self.message),
        }
    }
}

/// Everything that is wrong with one configuration, in the order of its lines; never empty.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Faults {
    /// What the file is called in messages.
    pub file: String,
    /// At least one.
    pub list: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{}", fault.describe(&self.file))?;
        }
        Ok(())
    }
}

/// Gathers faults while sections are read.
#[derive(Debug, Default)]
pub struct Collector {
    faults: RefCell<Vec<Fault>>,
}

impl Collector {
    /// Notes one.
    pub fn add(&self, place: &Place, kind: FaultKind, message: impl Into<String>) {
        let message = message.into();
        self.faults.borrow_mut().push(Fault { place: place.clone(), kind, message });
    }

    /// The faults by line. Where the file is not TOML, what seems missing may only be unreadable, so it is left out.
    pub fn finish(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        let broken_lines: Vec<usize> =
            faults.iter().filter(|fault| fault.kind == FaultKind::Syntax).filter_map(line_of).collect();
        if !broken_lines.is_empty() {
            faults.retain(|fault| match fault.kind {
                FaultKind::Syntax => true,
                FaultKind::Missing | FaultKind::Reference => false,
                FaultKind::Unknown | FaultKind::Value => {
                    line_of(fault).is_none_or(|line| !broken_lines.contains(&line))
                }
            });
        }
        faults.sort_by(|left, right| (&left.place, &left.message).cmp(&(&right.place, &right.message)));
        // What follows a syntax fault on its line is mostly an echo of it.
        faults.dedup_by(|next, first| {
            next == first
                || (first.kind == FaultKind::Syntax && line_of(next).is_some_and(|line| line_of(first) == Some(line)))
        });
        faults
    }
}

fn line_of(fault: &Fault) -> Option<usize> {
    match fault.place {
        Place::File { line, .. } => Some(line),
        Place::Variable(_) | Place::Flag(_) | Place::Default => None,
    }
}
