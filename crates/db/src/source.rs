//! Holds: where a statement over many rows takes them from, and where new rows go.

use std::fmt::{self, Display, Formatter};

use crate::{Value, marks};

/// What a statement over many rows takes them from.
#[derive(Debug)]
pub enum Source {
    /// One row's values are the parameters, in order from `$1`.
    One,
    /// This query, which has the rows.
    Many(String),
}

impl Source {
    /// The rows, for an `INSERT` of so many columns.
    pub fn rows(&self, columns: usize) -> String {
        match self {
            Self::One => format!("VALUES ({})", marks(columns, 1)),
            Self::Many(query) => query.clone(),
        }
    }
}

/// Where new rows go: a table, and those of its columns that they have.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The table.
    pub table: &'static str,
    /// The columns, in the order of a row's values.
    pub columns: &'static [&'static str],
}

impl Target {
    /// The statement that adds rows; what follows it may say what is to be done about those that are there.
    pub fn insert(&self, source: &Source) -> String {
        format!("INSERT INTO {self} {}", source.rows(self.columns.len()))
    }

    /// The statement after which PostgreSQL takes rows as they are sent.
    pub(crate) fn copy(&self) -> String {
        format!("COPY {self} FROM STDIN (FORMAT binary)")
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.table, self.columns.join(", "))
    }
}

/// Rows of so many values each, one at least, as what a statement over them takes: PostgreSQL gets each column as one array, so that a
/// statement has one text however many rows there are.
pub fn columns_of(values: Vec<Value>, columns: usize) -> (Source, Vec<Value>) {
    let rows = values.len() / columns;
    if rows == 1 {
        return (Source::One, values);
    }
    let mut arrays: Vec<Vec<Value>> = (0..columns).map(|_| Vec::with_capacity(rows)).collect();
    for (value, column) in values.into_iter().zip((0..columns).cycle()) {
        if let Some(array) = arrays.get_mut(column) {
            array.push(value);
        }
    }
    let source = format!("SELECT * FROM unnest({})", marks(columns, 1));
    (Source::Many(source), arrays.into_iter().map(Value::Many).collect())
}
