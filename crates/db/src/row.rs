//! Holds: one row that a database gave.

use std::sync::Arc;

use rusqlite::types::{FromSql, Value, ValueRef};

use crate::DbError;

/// What a column can be read as, on both databases.
pub trait Column: FromSql + for<'a> tokio_postgres::types::FromSql<'a> {}

impl<T: FromSql + for<'a> tokio_postgres::types::FromSql<'a>> Column for T {}

/// A row.
#[derive(Debug)]
pub struct Row(From);

#[derive(Debug)]
enum From {
    Postgres(tokio_postgres::Row),
    /// The names are those of all rows of one answer.
    Sqlite(Arc<[Box<str>]>, Box<[Value]>),
}

impl Row {
    pub(crate) const fn postgres(row: tokio_postgres::Row) -> Self {
        Self(From::Postgres(row))
    }

    pub(crate) const fn sqlite(names: Arc<[Box<str>]>, values: Box<[Value]>) -> Self {
        Self(From::Sqlite(names, values))
    }

    /// The value of a column. An error if there is no such column, or it holds what `T` cannot be.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, DbError> {
        let fault = |cause| DbError::Column { column: column.to_owned(), cause };
        match &self.0 {
            From::Postgres(row) => row.try_get(column).map_err(|cause| fault(cause.into())),
            From::Sqlite(names, values) => {
                let place = names.iter().position(|name| **name == *column);
                let value = place.and_then(|place| values.get(place)).ok_or_else(|| fault("there is none".into()))?;
                T::column_result(ValueRef::from(value)).map_err(|cause| fault(cause.into()))
            }
        }
    }
}
