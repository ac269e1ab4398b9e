//! Holds: the readers: what a person wrote, one task at a time.
//!
//! Pure streams over any `BufRead`: at no time is more than one line or row in memory. They know no server.

mod json_line;
mod lines;
mod quotes;
mod table;
mod task;
mod template;

use std::io;

pub(super) use lines::JsonLines;
pub(super) use table::{Table, TableError, TableOptions};
pub(super) use task::Task;
pub(super) use template::Template;

/// The longest line or row, in bytes: images and sound may stand in one, and a missing newline or quote must not fill
/// the memory. Servers take less.
pub(super) const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// One line or row that is not empty, and what it means.
#[derive(Debug)]
pub(super) struct Row {
    /// Counted from 1; where the row begins.
    pub line: u64,
    /// The task, or what is wrong with it.
    pub task: Result<Task, String>,
}

/// Rows in their order, until the input ends or breaks.
pub(super) type Rows<'a> = Box<dyn Iterator<Item = io::Result<Row>> + 'a>;

#[cfg(test)]
mod tests;
