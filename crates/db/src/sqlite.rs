//! Holds: SQLite's connections: one for writing, on which every transaction that changes the file runs, and a few that
//! only read.
//!
//! SQLite itself says here whether a transaction is open, which no counter beside it can get wrong: after a full disk or a
//! failed write it rolls back by itself, and whoever goes by a counter then believes in commits that never were. A
//! connection whose transaction failed for more than a constraint or a busy file is closed, and the next one is new.
//!
//! Statements run on the thread that asks, which must be one that may block.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{CachedStatement, Connection, OpenFlags, config::DbConfig};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    DbError, Row, Value,
    error::{is_busy, leaves_transaction},
};

/// How long a statement waits for another process's write lock before it fails as busy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a query waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// More readers than cores gain nothing.
const READERS: usize = 4;
/// Page cache of one connection, in KiB as SQLite writes it: the pages that the next commit touches stay, whatever a
/// report reads in between.
const CACHE: &str = "-8192";
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
    pub(crate) fn begin(self: Arc<Self>, turn: OwnedSemaphorePermit) -> Result<OwnTx, DbError> {
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
    fn open(&self) -> Result<&Connection, DbError> {
        match self {
            Self::Open(connection) => Ok(connection),
            Self::Empty | Self::Closed => Err(DbError::NoConnection("the database is closed".into())),
        }
    }
}

/// A connection to a file that must be there.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    connect_with(path, OpenFlags::empty())
}

fn connect_with(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A plan is for any values: what is prepared is not prepared again for other ones.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // FULL: a commit is on the disk before anybody is told of it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
    Ok(connection)
}

/// Makes the file, if it is not there, with a write-ahead log. Whether to try again: on a new file, whoever comes while
/// another process turns its journal finds it locked whatever the busy timeout.
pub(crate) fn create(path: &Path) -> Result<(), (DbError, bool)> {
    let created = connect_with(path, OpenFlags::SQLITE_OPEN_CREATE)
        .and_then(|connection| connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())));
    created.map_err(|cause| {
        let again = is_busy(&cause);
        (cause.into(), again)
    })
}

/// The connections that only read. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readers {
    path: Arc<Path>,
    /// std mutex: held to take one or put one back.
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.into(), idle: Arc::default(), places: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs a query outside of a transaction.
    pub(crate) async fn all(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, DbError> {
        let place = self.place().await?;
        let this = self.clone();
        blocking(move || {
            let _place = place;
            let known = this.idle().pop();
            let connection = known.map_or_else(|| this.connect(), Ok)?;
            let found = all(&connection, &sql, &values);
            if found.as_ref().err().is_none_or(leaves_transaction) {
                this.idle().push(connection);
            }
            Ok(found?)
        })
        .await
    }

    /// A connection of its own, in a transaction that reads, with its place among the readers.
    pub(crate) async fn snapshot(&self) -> Result<(Connection, OwnedSemaphorePermit), DbError> {
        let place = self.place().await?;
        let this = self.clone();
        let connection = blocking(move || {
            let connection = this.connect()?;
            connection.execute_batch("BEGIN")?;
            Ok(connection)
        });
        Ok((connection.await?, place))
    }

    /// Lets go of the file, once what is being read is read.
    pub(crate) fn close(&self) {
        self.places.close();
        self.idle().clear();
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path)?;
        connection.pragma_update(None, "query_only", "ON")?;
        Ok(connection)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, DbError> {
        let place = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|late| DbError::NoConnection(late.into()))?;
        place.map_err(|closed| DbError::NoConnection(closed.into()))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnTx {
    /// Makes it durable. When that fails for more than a busy file, nobody knows what a restart would find: the end of
    /// the transaction may lie in the write-ahead log, not yet counted as part of it.
    pub(crate) fn commit(&self) -> Result<(), DbError> {
        let slot = self.lock()?;
        let committed = slot.open()?.prepare_cached("COMMIT").and_then(|mut commit| commit.execute(()));
        drop(slot);
        match committed {
            Ok(_) => Ok(()),
            Err(cause) if leaves_transaction(&cause) => Err(cause.into()),
            Err(cause) => {
                self.failed.store(true, Ordering::Relaxed);
                Err(DbError::Unsure(Box::new(cause)))
            }
        }
    }

    /// Runs a statement once with each of these values; returns how many rows it touched.
    pub(crate) fn run_each<'a>(&self, sql: &str, rows: impl IntoIterator<Item = &'a [Value]>) -> Result<u64, DbError> {
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
    pub(crate) fn all(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DbError> {
        self.with(|connection| all(connection, sql, values))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let slot = self.lock()?;
        work(slot.open()?).map_err(|cause| {
            if !leaves_transaction(&cause) {
                self.failed.store(true, Ordering::Relaxed);
            }
            cause.into()
        })
    }

    /// The connection, as long as the transaction is open on it: outside of one, each statement would be its own.
    fn lock(&self) -> Result<MutexGuard<'_, Slot>, DbError> {
        let slot = self.own.lock();
        if self.failed.load(Ordering::Relaxed) || slot.open()?.is_autocommit() {
            self.failed.store(true, Ordering::Relaxed);
            return Err(DbError::RolledBack);
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

/// Runs a query.
pub(crate) fn all(connection: &Connection, sql: &str, values: &[Value]) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(sql)?;
    let names: Arc<[Box<str>]> = statement.column_names().map(Box::from).collect();
    let places = places(&statement);
    bind(&mut statement, &places, values)?;
    let (mut rows, mut found) = (statement.raw_query(), Vec::new());
    while let Some(row) = rows.next()? {
        let values = (0..names.len()).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
        found.push(Row::sqlite(Arc::clone(&names), values));
    }
    Ok(found)
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DbError> + Send + 'static,
) -> Result<T, DbError> {
    tokio::task::spawn_blocking(work).await.map_err(DbError::Thread)?
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
        statement.raw_bind_parameter(parameter, value)?;
    }
    Ok(())
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
        full.run_each("INSERT INTO t (a) VALUES ($1)", [&[1_i64.into()][..]]).unwrap();
        full.all("PRAGMA max_page_count = 2", &[]).unwrap();
        let refused = full.run_each("INSERT INTO t (a) VALUES ($1)", [&[vec![0_u8; 1 << 20].into()][..]]).unwrap_err();
        assert_eq!(refused.outage(), Some(crate::Outage::Full));
        assert!(refused.is_passing());
        assert!(full.run_each("INSERT INTO t (a) VALUES ($1)", [&[2_i64.into()][..]]).is_err());
        assert!(full.commit().is_err());
        drop(full);
        assert_eq!(count(), 0);

        // A new connection, which has no such bound.
        let next = Arc::clone(&own).begin(turn()).unwrap();
        next.run_each("INSERT INTO t (a) VALUES ($1)", [&[vec![0_u8; 1 << 20].into()][..]]).unwrap();
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
        tx.run_each("INSERT INTO t (a) VALUES ($1)", [&[1_i64.into()][..]]).unwrap();
        assert!(tx.run_each("INSERT INTO t (a) VALUES ($1)", [&[1_i64.into()][..]]).unwrap_err().is_duplicate());
        tx.run_each("INSERT INTO t (a) VALUES ($1)", [&[2_i64.into()][..]]).unwrap();
        tx.commit().unwrap();
        drop(tx);
        // Left without an end, it leaves no trace.
        let left = Arc::clone(&own).begin(turn()).unwrap();
        left.run_each("INSERT INTO t (a) VALUES ($1)", [&[3_i64.into()][..]]).unwrap();
        drop(left);
        assert_eq!(other.query_row("SELECT sum(a) FROM t", (), |row| row.get::<_, i64>(0)).unwrap(), 3);
    }

    #[test]
    fn a_cached_statement_is_compiled_once_whatever_it_is_run_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own.db");
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE t (a integer, b integer); CREATE INDEX t_b ON t (b) WHERE a = 0").unwrap();
        let connection = connect(&file).unwrap();
        let sql = "SELECT b FROM t WHERE a = $1 AND b <= $2";
        for b in 0..5_i64 {
            all(&connection, sql, &[0_i64.into(), b.into()]).unwrap();
        }
        let statement = connection.prepare_cached(sql).unwrap();
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
