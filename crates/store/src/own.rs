//! Holds: SQLite's connection for groups, whose statements run on the thread that asks.
//!
//! The pool's connections each live on a thread of their own: a statement is sent there and its answer sent back, which
//! costs more than the statement does. A group has a dozen of them and one for each row.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{
    CachedStatement, Connection, OpenFlags,
    types::{self, ToSql, ToSqlOutput},
};
use sea_orm::{ConnAcquireErr, DbErr, Value};

use crate::{
    StoreError,
    connect::{SQLITE_BUSY_TIMEOUT, SQLITE_CACHE},
    row::Row,
};

/// Statement texts that stay prepared: those of a group, in the run lengths that occur.
const PREPARED_STATEMENTS: usize = 64;

/// The connection, opened when it is first needed.
pub(crate) struct OwnConnection {
    path: PathBuf,
    /// std mutex: held for one statement, never across an await; writers take turns before they come here.
    slot: Mutex<Slot>,
}

enum Slot {
    Empty,
    Open(Connection),
    Closed,
}

/// A transaction on it. Dropped, it is rolled back.
pub(crate) struct OwnTx(Arc<OwnConnection>);

impl OwnConnection {
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self { path, slot: Mutex::new(Slot::Empty) }
    }

    pub(crate) fn begin(self: Arc<Self>) -> Result<OwnTx, StoreError> {
        let mut slot = self.lock();
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Open(connect(&self.path)?);
        }
        slot.open()?.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
        drop(slot);
        Ok(OwnTx(self))
    }

    /// Lets go of the file for good.
    pub(crate) fn close(&self) {
        *self.lock() = Slot::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn open(&self) -> Result<&Connection, StoreError> {
        match self {
            Self::Open(connection) => Ok(connection),
            Self::Empty | Self::Closed => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed).into()),
        }
    }
}

/// As the pool opens its own, except that the file must be there.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(SQLITE_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", SQLITE_CACHE)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    Ok(connection)
}

impl OwnTx {
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        self.with(|connection| connection.prepare_cached("COMMIT")?.execute(()).map(drop))
    }

    /// Runs a statement; returns how many rows it touched.
    pub(crate) fn run(&self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.run_each(sql, [values])
    }

    /// Runs a statement once with each of these values; returns how many rows it touched.
    pub(crate) fn run_each<'a>(
        &self,
        sql: &str,
        rows: impl IntoIterator<Item = &'a [Value]>,
    ) -> Result<u64, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let places = places(&statement);
            let mut touched = 0;
            for values in rows {
                bind(&mut statement, &places, values)?;
                touched += statement.raw_execute()? as u64;
            }
            Ok(touched)
        })
    }

    /// Runs a query.
    pub(crate) fn all(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
            let places = places(&statement);
            bind(&mut statement, &places, values)?;
            let (mut rows, mut found) = (statement.raw_query(), Vec::new());
            while let Some(row) = rows.next()? {
                let columns = names.iter().enumerate().map(|(i, name)| row.get(i).map(|value| (name.clone(), value)));
                found.push(Row::Own(columns.collect::<rusqlite::Result<_>>()?));
            }
            Ok(found)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        Ok(work(self.0.lock().open()?)?)
    }
}

impl Drop for OwnTx {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        let open = slot.open().ok().filter(|connection| !connection.is_autocommit());
        if open.is_some_and(|connection| connection.execute_batch("ROLLBACK").is_err()) {
            // Closing rolls back, and a connection that did not is not used again.
            *slot = Slot::Empty;
        }
    }
}

/// Which value each parameter takes: `$3` the third, as everywhere in this crate, and each `?` the next one.
fn places(statement: &CachedStatement<'_>) -> Vec<usize> {
    let mut next = 0;
    let place = |parameter| {
        let numbered = statement.parameter_name(parameter).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        numbered.map_or_else(
            || {
                next += 1;
                next - 1
            },
            |number| number.saturating_sub(1),
        )
    };
    (1..=statement.parameter_count()).map(place).collect()
}

fn bind(statement: &mut CachedStatement<'_>, places: &[usize], values: &[Value]) -> rusqlite::Result<()> {
    for (parameter, place) in (1_usize..).zip(places) {
        let value = values.get(*place).ok_or(rusqlite::Error::InvalidParameterCount(values.len(), places.len()))?;
        statement.raw_bind_parameter(parameter, Parameter(value))?;
    }
    Ok(())
}

/// A value as the pool's driver would store it.
struct Parameter<'a>(&'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.0 {
            Value::Bool(value) => value.to_sql(),
            Value::SmallInt(value) => value.to_sql(),
            Value::Int(value) => value.to_sql(),
            Value::BigInt(value) => value.to_sql(),
            Value::String(value) => value.to_sql(),
            Value::Bytes(value) => value.to_sql(),
            Value::Uuid(Some(value)) => Ok(ToSqlOutput::from(value.as_bytes().as_slice())),
            Value::Uuid(None) => Ok(ToSqlOutput::Owned(types::Value::Null)),
            _ => Err(rusqlite::Error::ToSqlConversionFailure("a kind of value that no group has".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_and_plain_parameters_find_their_values() {
        let connection = Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare_cached("SELECT ?, $3, ?, $1").unwrap();
        let found = places(&statement);
        assert_eq!(found, [0, 2, 1, 0]);
        bind(&mut statement, &found, &[1_i64.into(), 2_i64.into(), 3_i64.into()]).unwrap();
        let mut rows = statement.raw_query();
        let row = rows.next().unwrap().unwrap();
        let values: Vec<i64> = (0..4).map(|i| row.get(i).unwrap()).collect();
        assert_eq!(values, [1, 3, 2, 1]);
        drop(rows);
        assert!(bind(&mut statement, &found, &[1_i64.into()]).is_err());
    }
}
