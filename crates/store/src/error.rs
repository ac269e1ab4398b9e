//! Holds: what can go wrong between us and the database, whatever the verb.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

/// A verb could not be carried out. Its transaction was rolled back or its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do what it was asked to.
    #[error("the database failed")]
    Database(#[source] DbErr),
    /// SQLite did not write what it was asked to.
    #[error("the database failed")]
    Writer(#[source] rusqlite::Error),
    /// The connection was lost while committing: what the verb did may or may not be there.
    #[error("the database was lost while committing")]
    Unsure(#[source] DbErr),
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
        matches!(self, Self::Database(cause) if matches!(cause.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))))
    }

    /// Whether the same transaction may well succeed if it is simply run again: the database was busy, chose this
    /// transaction to break a deadlock, or the connection was lost.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unsure(_) => true,
            Self::Database(cause) => is_passing(cause),
            Self::Writer(cause) => {
                use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
                matches!(cause.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
            }
            Self::RowCount { .. } | Self::Corrupt { .. } => false,
        }
    }

    /// A commit that failed: the database said no, or nothing was heard of it.
    pub(crate) fn of_commit(cause: DbErr) -> Self {
        match &cause {
            DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) if matches!(&**e, sea_orm::sqlx::Error::Database(db) if !is_lost(&db.code().unwrap_or_default())) => {
                Self::Database(cause)
            }
            _ => Self::Unsure(cause),
        }
    }
}

/// Codes with which PostgreSQL takes its leave: class 08 connection, 57P operator.
fn is_lost(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

pub(crate) fn is_passing(cause: &DbErr) -> bool {
    use sea_orm::sqlx::Error;
    let (DbErr::Conn(RuntimeErr::SqlxError(e))
    | DbErr::Exec(RuntimeErr::SqlxError(e))
    | DbErr::Query(RuntimeErr::SqlxError(e))) = cause
    else {
        return matches!(cause, DbErr::ConnectionAcquire(_) | DbErr::Conn(_));
    };
    match &**e {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed | Error::Protocol(_) => true,
        Error::Database(db) => {
            let code = db.code().unwrap_or_default();
            match (code.len(), code.parse::<u32>()) {
                // PostgreSQL, by class: connection, rollback, resources, operator; and what waits too long for a
                // lock or sat idle in its transaction.
                (5, _) => {
                    ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
                        || matches!(&*code, "55P03" | "25P03")
                }
                // SQLite: the low byte is the primary code, whatever the extended one adds: 5 is busy, 6 locked.
                (_, Ok(number)) => matches!(number & 0xff, 5 | 6),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Rule: every UPDATE says how many rows it must touch.
pub(crate) fn exactly(touched: u64, expected: u64, table: &'static str) -> Result<(), StoreError> {
    if touched == expected { Ok(()) } else { Err(StoreError::RowCount { table, expected, touched }) }
}
