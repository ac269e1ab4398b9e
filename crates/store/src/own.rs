//! Holds: SQLite's connection for writing: every transaction that changes the file runs on it.
//!
//! SQLite itself says here whether a transaction is open, which no counter beside it can get wrong: after a full disk or a
//! failed write it rolls back by itself, and whoever goes by a counter then believes in commits that never were. A
//! connection whose transaction failed for more than a constraint or a busy file is closed, and the next one is new.
//!
//! Statements of a group run on the thread that asks. The pool's connections, which only read, each live on a thread of
//! their own: a statement is sent there and its answer sent back, which costs more than the statement does, and a group
//! has a dozen of them and one for each row.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::{
    CachedStatement, Connection, OpenFlags,
    types::{self, ToSql, ToSqlOutput},
};
use sea_orm::{ConnAcquireErr, DbErr, Value};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    StoreError,
    connect::{SQLITE_BUSY_TIMEOUT, SQLITE_CACHE},
    error::leaves_transaction,
    row::Row,
};

/// Statement texts that stay prepared: those of all verbs that are in use, with room.
const PREPARED_STATEMENTS: usize = 256;

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
pub(crate) struct OwnTx {
    own: Arc<OwnConnection>,
    /// It failed for more than a constraint or a busy file: nothing more is done in it.
    failed: AtomicBool,
    // Dropped after the transaction has ended.
    _turn: OwnedSemaphorePermit,
}

impl OwnConnection {
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self { path, slot: Mutex::new(Slot::Empty) }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a transaction. Whoever has the turn is the only one that does.
    pub(crate) fn begin(self: Arc<Self>, turn: OwnedSemaphorePermit) -> Result<OwnTx, StoreError> {
        let mut slot = self.lock();
        if slot.open().is_ok_and(|connection| !connection.is_autocommit()) {
            *slot = Slot::Empty;
        }
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Open(connect(&self.path)?);
        }
        let begun = slot.open()?.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute(()));
        if let Err(cause) = begun {
            if !leaves_transaction(&cause) {
                *slot = Slot::Empty;
            }
            return Err(cause.into());
        }
        drop(slot);
        Ok(OwnTx { own: self, failed: AtomicBool::new(false), _turn: turn })
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
    /// Makes it durable. When that fails for more than a busy file, nobody knows what a restart would find: the end of
    /// the transaction may lie in the write-ahead log, not yet counted as part of it.
    pub(crate) fn commit(&self) -> Result<(), StoreError> {
        let slot = self.lock()?;
        let committed = slot.open()?.prepare_cached("COMMIT").and_then(|mut commit| commit.execute(()));
        drop(slot);
        match committed {
            Ok(_) => Ok(()),
            Err(cause) if leaves_transaction(&cause) => Err(cause.into()),
            Err(cause) => {
                self.failed.store(true, Ordering::Relaxed);
                Err(StoreError::Unsure(Box::new(cause)))
            }
        }
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
        let slot = self.lock()?;
        work(slot.open()?).map_err(|cause| {
            if !leaves_transaction(&cause) {
                self.failed.store(true, Ordering::Relaxed);
            }
            cause.into()
        })
    }

    /// The connection, as long as the transaction is open on it: outside of one, each statement would be its own.
    fn lock(&self) -> Result<MutexGuard<'_, Slot>, StoreError> {
        let slot = self.own.lock();
        if self.failed.load(Ordering::Relaxed) || slot.open()?.is_autocommit() {
            self.failed.store(true, Ordering::Relaxed);
            return Err(DbErr::Custom("the transaction was rolled back".to_owned()).into());
        }
        Ok(slot)
    }
}

impl Drop for OwnTx {
    fn drop(&mut self) {
        let mut slot = self.own.lock();
        let Ok(connection) = slot.open() else { return };
        let failed = *self.failed.get_mut();
        let left_open = !connection.is_autocommit() && (failed || connection.execute_batch("ROLLBACK").is_err());
        if failed || left_open {
            // Closing rolls back.
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
            Value::TinyInt(value) => value.to_sql(),
            Value::SmallInt(value) => value.to_sql(),
            Value::Int(value) => value.to_sql(),
            Value::BigInt(value) => value.to_sql(),
            Value::String(value) => value.to_sql(),
            Value::Bytes(value) => value.to_sql(),
            Value::Uuid(Some(value)) => Ok(ToSqlOutput::from(value.as_bytes().as_slice())),
            Value::Uuid(None) => Ok(ToSqlOutput::Owned(types::Value::Null)),
            _ => Err(rusqlite::Error::ToSqlConversionFailure("a kind of value that no verb has".into())),
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

    fn turn() -> OwnedSemaphorePermit {
        Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    /// SQLite rolls back by itself when it has no more room; what comes after must neither be written on its own nor be
    /// taken for committed.
    #[test]
    fn after_a_full_disk_nothing_is_written_outside_of_a_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a blob)").unwrap();
        let count = || other.query_row("SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)).unwrap();
        let own = Arc::new(OwnConnection::at(file));

        let full = Arc::clone(&own).begin(turn()).unwrap();
        full.run("INSERT INTO t (a) VALUES ($1)", &[1_i64.into()]).unwrap();
        full.all("PRAGMA max_page_count = 2", &[]).unwrap();
        let refused = full.run("INSERT INTO t (a) VALUES ($1)", &[vec![0_u8; 1 << 20].into()]).unwrap_err();
        assert_eq!(refused.outage(), Some(crate::Outage::Full));
        assert!(refused.is_passing());
        assert!(full.run("INSERT INTO t (a) VALUES ($1)", &[2_i64.into()]).is_err());
        assert!(full.commit().is_err());
        drop(full);
        assert_eq!(count(), 0);

        // A new connection, which has no such bound.
        let next = Arc::clone(&own).begin(turn()).unwrap();
        next.run("INSERT INTO t (a) VALUES ($1)", &[vec![0_u8; 1 << 20].into()]).unwrap();
        next.commit().unwrap();
        drop(next);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_constraint_leaves_the_transaction_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a integer PRIMARY KEY)").unwrap();
        let own = Arc::new(OwnConnection::at(file));
        let tx = Arc::clone(&own).begin(turn()).unwrap();
        tx.run("INSERT INTO t (a) VALUES ($1)", &[1_i64.into()]).unwrap();
        assert!(tx.run("INSERT INTO t (a) VALUES ($1)", &[1_i64.into()]).unwrap_err().is_duplicate());
        tx.run("INSERT INTO t (a) VALUES ($1)", &[2_i64.into()]).unwrap();
        tx.commit().unwrap();
        drop(tx);
        // Left without an end, it leaves no trace.
        let left = Arc::clone(&own).begin(turn()).unwrap();
        left.run("INSERT INTO t (a) VALUES ($1)", &[3_i64.into()]).unwrap();
        drop(left);
        assert_eq!(other.query_row("SELECT sum(a) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 3);
    }
}
