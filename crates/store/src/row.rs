//! Holds: one row that the database gave, whichever connection it came from.

use rusqlite::types::{FromSql, Value, ValueRef};
use sea_orm::{DbErr, QueryResult, TryGetable};

/// A row.
pub(crate) enum Row {
    /// From the pool.
    Pooled(QueryResult),
    /// From SQLite's own connection: names and values.
    Own(Vec<(String, Value)>),
}

impl Row {
    /// The value of a column.
    pub(crate) fn try_get<T: TryGetable + FromSql>(&self, prefix: &str, column: &str) -> Result<T, DbErr> {
        match self {
            Self::Pooled(row) => row.try_get(prefix, column),
            Self::Own(values) => {
                let found = values.iter().find(|(name, _)| name == column);
                let (_, value) = found.ok_or_else(|| DbErr::Type(format!("no column {column}")))?;
                T::column_result(ValueRef::from(value)).map_err(|cause| DbErr::Type(format!("{column}: {cause}")))
            }
        }
    }
}
