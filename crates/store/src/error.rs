//! Holds: what can go wrong between us and the database, whatever the verb.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

/// A verb could not be carried out. Its transaction was rolled back or its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do what it was asked to.
    #[error("the database failed")]
    Database(#[source] DbErr),
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

impl StoreError {
    /// Whether a unique constraint refused the row.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Database(cause) if matches!(cause.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))))
    }

    /// Whether the same transaction may well succeed if it is simply run again: the database was busy, chose this
    /// transaction to break a deadlock, or the connection was lost.
    pub fn is_passing(&self) -> bool {
        let Self::Database(cause) = self else { return false };
        match cause {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
            DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => {
                use sea_orm::sqlx::Error;
                match &**e {
                    Error::Io(_)
                    | Error::PoolTimedOut
                    | Error::PoolClosed
                    | Error::WorkerCrashed
                    | Error::Protocol(_) => true,
                    // PostgreSQL: class 08 connection, 40 rollback, 53 resources, 57 operator; SQLite: 5 busy, 6 locked.
                    Error::Database(db) => db.code().is_some_and(|code| {
                        ["08", "40", "53", "57"].iter().any(|class| code.len() == 5 && code.starts_with(class))
                            || matches!(&*code, "5" | "6" | "517")
                    }),
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// Rule: every UPDATE says how many rows it must touch.
pub(crate) fn exactly(touched: u64, expected: u64, table: &'static str) -> Result<(), StoreError> {
    if touched == expected { Ok(()) } else { Err(StoreError::RowCount { table, expected, touched }) }
}
