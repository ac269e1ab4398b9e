//! Holds: what can go wrong between us and the database, whatever the verb.

use std::error::Error;

use rusqlite::ffi;
use sea_orm::{
    DbErr, RuntimeErr, SqlErr,
    sqlx::{self, error::DatabaseError},
};

/// Characters of PostgreSQL's codes; SQLite's are shorter numbers.
const SQLSTATE_LEN: usize = 5;

/// A verb could not be carried out. Its transaction was rolled back or its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do what it was asked to.
    #[error("the database failed ({})", code(.0))]
    Database(#[source] DbErr),
    /// SQLite did not write what it was asked to.
    #[error("the database failed ({})", sqlite_code(.0))]
    Writer(#[source] rusqlite::Error),
    /// The connection was lost while committing: what the verb did may or may not be there.
    #[error("the database was lost while committing")]
    Unsure(#[source] Box<dyn Error + Send + Sync>),
    /// A row that must exist once did not.
    #[error("{table}: expected {expected} row(s), the statement touched {touched}")]
    RowCount {
        /// The table.
        table: &'static str,
        /// How many rows the verb must touch.
        expected: u64,
        /// How many it touched.
        touched: u64,
    },
    /// A stored value that no version of this program writes.
    #[error("{table}.{column} holds a value this version does not know")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

impl From<DbErr> for StoreError {
    fn from(cause: DbErr) -> Self {
        Self::Database(cause)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Writer(cause)
    }
}

impl StoreError {
    /// Whether a unique constraint refused the row.
    pub(crate) fn is_duplicate(&self) -> bool {
        match self {
            Self::Database(cause) => matches!(cause.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))),
            Self::Writer(cause) => {
                matches!(sqlite_number(cause), Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY))
            }
            Self::Unsure(_) | Self::RowCount { .. } | Self::Corrupt { .. } => false,
        }
    }

    /// Whether the same transaction may well succeed if it is simply run again: the database was busy, chose this
    /// transaction to break a deadlock, the connection was lost, or the disk is full or failing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unsure(_) => true,
            Self::Database(cause) => is_passing(cause),
            Self::Writer(cause) => sqlite_number(cause).is_some_and(is_passing_sqlite),
            Self::RowCount { .. } | Self::Corrupt { .. } => false,
        }
    }

    /// Why the database takes no writes, if this says that it does not.
    pub(crate) fn outage(&self) -> Option<Outage> {
        match self {
            Self::Database(cause) => outage(cause),
            Self::Writer(cause) => sqlite_number(cause).and_then(outage_sqlite),
            Self::Unsure(cause) => Some(match (cause.downcast_ref(), cause.downcast_ref()) {
                (Some(cause), _) => outage(cause).unwrap_or(Outage::Away),
                (_, Some(cause)) => sqlite_number(cause).and_then(outage_sqlite).unwrap_or(Outage::Broken),
                (None, None) => Outage::Away,
            }),
            Self::RowCount { .. } | Self::Corrupt { .. } => None,
        }
    }

    /// A commit that failed: the database said no, or nothing was heard of it.
    pub(crate) fn of_commit(cause: DbErr) -> Self {
        match database(&cause) {
            Some(db) if !is_lost(&db.code().unwrap_or_default()) => Self::Database(cause),
            _ => Self::Unsure(Box::new(cause)),
        }
    }
}

/// Why the database takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// There is no room for what is to be written.
    Full,
    /// Its disk does not write or read.
    Broken,
    /// It only lets itself be read.
    ReadOnly,
    /// It does not answer.
    Away,
}

impl Outage {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "disk_full",
            Self::Broken => "io_error",
            Self::ReadOnly => "read_only",
            Self::Away => "unreachable",
        }
    }

    /// In words, for whoever looks after the server.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Full => "its disk is full",
            Self::Broken => "its disk fails",
            Self::ReadOnly => "it can only be read",
            Self::Away => "it does not answer",
        }
    }
}

/// Whether SQLite goes on with the transaction after this error. After others it may have rolled back by itself.
pub(crate) fn leaves_transaction(cause: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, DatabaseBusy, DatabaseLocked};
    matches!(cause.sqlite_error_code(), Some(ConstraintViolation | DatabaseBusy | DatabaseLocked))
}

fn sqlite_number(cause: &rusqlite::Error) -> Option<i32> {
    cause.sqlite_error().map(|error| error.extended_code)
}

/// The low byte of a number is the primary code, whatever the extended one adds.
const fn is_passing_sqlite(number: i32) -> bool {
    matches!(number & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL)
        || outage_sqlite(number).is_some()
}

const fn outage_sqlite(number: i32) -> Option<Outage> {
    match number & 0xff {
        ffi::SQLITE_FULL => Some(Outage::Full),
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN | ffi::SQLITE_NOMEM => Some(Outage::Broken),
        ffi::SQLITE_READONLY => Some(Outage::ReadOnly),
        _ => None,
    }
}

fn outage(cause: &DbErr) -> Option<Outage> {
    let Some(db) = database(cause) else { return is_passing(cause).then_some(Outage::Away) };
    let code = db.code().unwrap_or_default();
    match &*code {
        "53100" => Some(Outage::Full),
        "58030" => Some(Outage::Broken),
        "25006" => Some(Outage::ReadOnly),
        code if code.len() == SQLSTATE_LEN => is_lost(code).then_some(Outage::Away),
        code => code.parse().ok().and_then(outage_sqlite),
    }
}

/// What the database itself said, where it said something.
fn database(cause: &DbErr) -> Option<&dyn DatabaseError> {
    match sqlx(cause)? {
        sqlx::Error::Database(db) => Some(&**db),
        _ => None,
    }
}

fn sqlx(cause: &DbErr) -> Option<&sqlx::Error> {
    match cause {
        DbErr::Conn(RuntimeErr::SqlxError(e))
        | DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

/// The database's own number for what went wrong, as its manual lists them.
fn code(cause: &DbErr) -> String {
    match database(cause).and_then(|db| Some(db.code()?.into_owned())) {
        Some(code) if code.len() == SQLSTATE_LEN => format!("SQLSTATE {code}"),
        Some(code) => format!("SQLite {code}"),
        None => "no answer".to_owned(),
    }
}

fn sqlite_code(cause: &rusqlite::Error) -> String {
    sqlite_number(cause).map_or_else(|| "no answer".to_owned(), |number| format!("SQLite {number}"))
}

/// Codes with which PostgreSQL takes its leave: class 08 connection, 57P operator.
fn is_lost(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

fn is_passing(cause: &DbErr) -> bool {
    use sqlx::Error;
    let Some(e) = sqlx(cause) else { return matches!(cause, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) };
    match e {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed | Error::Protocol(_) => true,
        Error::Database(db) => {
            let code = db.code().unwrap_or_default();
            match (code.len(), code.parse::<i32>()) {
                // PostgreSQL, by class: connection, rollback, resources, operator; what waits too long for a lock or sat
                // idle in its transaction; a disk that fails, and a server that is only read until it is promoted.
                (SQLSTATE_LEN, _) => {
                    ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
                        || matches!(&*code, "55P03" | "25P03" | "58030" | "25006")
                }
                (_, Ok(number)) => is_passing_sqlite(number),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether SQLite says that another process has the file.
pub(crate) fn is_busy(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|number| matches!(number & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// Rule: every UPDATE says how many rows it must touch.
pub(crate) fn exactly(touched: u64, expected: u64, table: &'static str) -> Result<(), StoreError> {
    if touched == expected { Ok(()) } else { Err(StoreError::RowCount { table, expected, touched }) }
}
