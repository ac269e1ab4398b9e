//! Holds: what can go wrong between us and the database, whatever the verb.

use std::{error::Error, io};

use rusqlite::ffi;
use tokio_postgres::error::{DbError as Said, SqlState};

/// A verb could not be carried out. Its transaction was rolled back or its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// PostgreSQL did not do what it was asked to.
    #[error("the database failed ({})", postgres_code(.0))]
    Postgres(#[source] tokio_postgres::Error),
    /// SQLite did not do what it was asked to.
    #[error("the database failed ({})", sqlite_code(.0))]
    Sqlite(#[source] rusqlite::Error),
    /// There was no connection to be had in time, or no more are.
    #[error("the database failed (no connection)")]
    NoConnection(#[source] Box<dyn Error + Send + Sync>),
    /// The transaction was rolled back before its end, by a failure that an earlier statement told of.
    #[error("the transaction was rolled back")]
    RolledBack,
    /// The thread that worked for it broke.
    #[error("the database failed (no thread)")]
    Thread(#[source] tokio::task::JoinError),
    /// A column that the row has not, or a value that is not what it should be.
    #[error("column {column} cannot be read")]
    Column {
        /// Its name.
        column: String,
        /// What is wrong with it.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
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

impl From<rusqlite::Error> for DbError {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sqlite(cause)
    }
}

impl DbError {
    /// Whether a unique constraint refused the row.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Postgres(cause) => cause.code() == Some(&SqlState::UNIQUE_VIOLATION),
            Self::Sqlite(cause) => {
                matches!(sqlite_number(cause), Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY))
            }
            _ => false,
        }
    }

    /// Whether the same transaction may well succeed if it is simply run again: the database was busy, chose this
    /// transaction to break a deadlock, the connection was lost, or the disk is full or failing.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unsure(_) | Self::NoConnection(_) => true,
            Self::Postgres(cause) => is_passing(cause),
            Self::Sqlite(cause) => sqlite_number(cause).is_some_and(is_passing_sqlite),
            Self::RolledBack | Self::Thread(_) | Self::Column { .. } | Self::RowCount { .. } | Self::Corrupt { .. } => {
                false
            }
        }
    }

    /// Why the database takes no writes, if this says that it does not.
    pub fn outage(&self) -> Option<Outage> {
        match self {
            Self::Postgres(cause) => outage(cause),
            Self::Sqlite(cause) => sqlite_number(cause).and_then(outage_sqlite),
            Self::NoConnection(_) => Some(Outage::Away),
            Self::Unsure(cause) => Some(match (cause.downcast_ref(), cause.downcast_ref()) {
                (Some(cause), _) => outage(cause).unwrap_or(Outage::Away),
                (_, Some(cause)) => sqlite_number(cause).and_then(outage_sqlite).unwrap_or(Outage::Broken),
                (None, None) => Outage::Away,
            }),
            Self::RolledBack | Self::Thread(_) | Self::Column { .. } | Self::RowCount { .. } | Self::Corrupt { .. } => {
                None
            }
        }
    }

    /// A statement that failed, or that was sent before it was known that another one had.
    pub(crate) fn of_statement(cause: tokio_postgres::Error) -> Self {
        if cause.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) {
            return Self::RolledBack;
        }
        Self::Postgres(cause)
    }

    /// A commit that failed: the database said no, or nothing was heard of it.
    pub(crate) fn of_commit(cause: tokio_postgres::Error) -> Self {
        match cause.as_db_error() {
            Some(said) if !is_lost(said) => Self::Postgres(cause),
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

fn outage(cause: &tokio_postgres::Error) -> Option<Outage> {
    let Some(said) = cause.as_db_error() else { return is_passing(cause).then_some(Outage::Away) };
    match said.code().code() {
        "53100" => Some(Outage::Full),
        "58030" => Some(Outage::Broken),
        "25006" => Some(Outage::ReadOnly),
        _ => is_lost(said).then_some(Outage::Away),
    }
}

/// The database's own number for what went wrong, as its manual lists them.
fn postgres_code(cause: &tokio_postgres::Error) -> String {
    cause.code().map_or_else(|| "no answer".to_owned(), |code| format!("SQLSTATE {}", code.code()))
}

fn sqlite_code(cause: &rusqlite::Error) -> String {
    sqlite_number(cause).map_or_else(|| "no answer".to_owned(), |number| format!("SQLite {number}"))
}

/// Codes with which PostgreSQL takes its leave: class 08 connection, 57P operator.
fn is_lost(said: &Said) -> bool {
    let code = said.code().code();
    code.starts_with("08") || code.starts_with("57P")
}

fn is_passing(cause: &tokio_postgres::Error) -> bool {
    match cause.as_db_error() {
        // By class: connection, rollback, resources, operator; what waits too long for a lock or sat idle in its
        // transaction; a disk that fails, and a server that is only read until it is promoted.
        Some(said) => {
            let code = said.code().code();
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
                || matches!(code, "55P03" | "25P03" | "58030" | "25006")
        }
        // The connection was closed, timed out or spoke nonsense; what has another cause was our own fault.
        None => cause.source().is_none_or(<dyn Error>::is::<io::Error>),
    }
}

/// Whether SQLite says that another process has the file.
pub(crate) fn is_busy(cause: &rusqlite::Error) -> bool {
    sqlite_number(cause).is_some_and(|number| matches!(number & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// What two parts of a transaction came to that ran side by side. Where both failed, one may only have seen that the
/// transaction had failed already; the other one knows why.
pub fn both<A, B>(one: Result<A, DbError>, other: Result<B, DbError>) -> Result<(A, B), DbError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(DbError::RolledBack), Err(cause)) | (Err(cause), _) | (_, Err(cause)) => Err(cause),
    }
}

/// Rule: every UPDATE says how many rows it must touch.
pub fn exactly(touched: u64, expected: u64, table: &'static str) -> Result<(), DbError> {
    if touched == expected { Ok(()) } else { Err(DbError::RowCount { table, expected, touched }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_failures_the_cause_is_told() {
        let cause = || Err::<(), _>(DbError::RowCount { table: "t", expected: 1, touched: 0 });
        let after = || Err::<(), _>(DbError::RolledBack);
        for failed in [both(cause(), after()), both(after(), cause()), both(Ok(()), cause()), both(cause(), Ok(()))] {
            assert!(matches!(failed, Err(DbError::RowCount { .. })), "{failed:?}");
        }
        assert!(matches!(both(after(), Ok(())), Err(DbError::RolledBack)));
        assert_eq!(both(Ok(1), Ok(2)).unwrap(), (1, 2));
    }
}
