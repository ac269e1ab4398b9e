//! Holds: a write transaction and a view that stands still, on either database.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use rusqlite::Connection;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Dialect, Row, Value,
    error::{DbError, both, exactly},
    in_runs,
    postgres::PgTx,
    source::{Source, Target, columns_of},
    sqlite::{self, OwnTx, blocking},
    writes::Writes,
};

/// New rows that PostgreSQL is sent by `COPY`: for fewer, asking for that costs more than an `INSERT` of arrays, which takes
/// twice the time for each row there.
const COPIED_ROWS: usize = 8;

/// A write transaction and, on SQLite, its place in the queue of writers. Dropped, it is rolled back.
pub struct WriteTx {
    /// On which database.
    pub dialect: Dialect,
    tx: Tx,
    writes: Arc<Writes>,
}

/// Where it runs.
pub(crate) enum Tx {
    /// Statements are sent away and their answers awaited.
    Postgres(PgTx),
    Sqlite(Sqlite),
}

pub(crate) enum Sqlite {
    /// From a thread that may block: statements run here and now; what is awaited is there already.
    Own(OwnTx),
    /// From a thread that must not block: each statement runs on one that may. Whoever leaves in the middle of a
    /// statement leaves the transaction to it, which ends it before the next writer's turn.
    Lent(Arc<OwnTx>),
}

impl Sqlite {
    /// Does something that blocks.
    async fn does<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnTx) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        match self {
            Self::Own(tx) => work(tx),
            Self::Lent(tx) => {
                let tx = Arc::clone(tx);
                blocking(move || work(&tx)).await
            }
        }
    }
}

impl WriteTx {
    pub(crate) const fn new(dialect: Dialect, tx: Tx, writes: Arc<Writes>) -> Self {
        Self { dialect, tx, writes }
    }

    /// Makes it durable.
    pub async fn commit(self) -> Result<(), DbError> {
        let committed = match self.tx {
            Tx::Postgres(tx) => tx.commit().await,
            Tx::Sqlite(tx) => tx.does(OwnTx::commit).await,
        };
        self.writes.committed(&committed);
        committed
    }

    /// Ends it without a trace, and its locks with it, before anything else is done.
    pub async fn leave(self) -> Result<(), DbError> {
        match self.tx {
            Tx::Postgres(tx) => tx.leave().await,
            Tx::Sqlite(_) => Ok(()),
        }
    }

    /// Runs a statement; returns how many rows it touched.
    pub async fn run(&self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Result<u64, DbError> {
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        let done = match &self.tx {
            Tx::Postgres(tx) => tx.run(&sql, &values).await,
            Tx::Sqlite(tx) => tx.does(move |tx| tx.run_each(&sql, [&*values])).await,
        };
        self.writes.seen(done)
    }

    /// Runs a statement over many rows of `columns` values each: once for all on PostgreSQL, once for each on SQLite.
    /// Returns how many rows it touched.
    pub async fn run_over(
        &self,
        values: Vec<Value>,
        columns: usize,
        sql: impl Fn(&Source) -> String,
    ) -> Result<u64, DbError> {
        // Not even prepared.
        if values.is_empty() {
            return Ok(0);
        }
        let done = match &self.tx {
            Tx::Sqlite(tx) => {
                let sql = sql(&Source::One);
                tx.does(move |tx| tx.run_each(&sql, values.chunks(columns))).await
            }
            Tx::Postgres(tx) => {
                let (source, values) = columns_of(values, columns);
                tx.run(&sql(&source), &values).await
            }
        };
        self.writes.seen(done)
    }

    /// Adds rows, all of which must be new.
    pub async fn insert(&self, into: Target, values: Vec<Value>) -> Result<(), DbError> {
        let columns = into.columns.len();
        let rows = values.len() / columns;
        let added = match &self.tx {
            Tx::Postgres(tx) if rows >= COPIED_ROWS => {
                self.writes.seen(tx.copy(&into.copy(), &values, columns).await)?
            }
            _ => self.run_over(values, columns, |source| into.insert(source)).await?,
        };
        exactly(added, rows as u64, into.table)
    }

    /// Runs a query.
    pub async fn all(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, DbError> {
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        let found = match &self.tx {
            Tx::Postgres(tx) => tx.all(&sql, &values).await,
            Tx::Sqlite(tx) => tx.does(move |tx| tx.all(&sql, &values)).await,
        };
        self.writes.seen(found)
    }

    /// Runs a query that looks for many values of one kind; `sql` has for a condition what it is given after a column's
    /// name: `WHERE id {condition}`. `$1` and on are `others`.
    pub async fn all_of(
        &self,
        wanted: Vec<Value>,
        others: Vec<Value>,
        sql: impl Fn(&str) -> String,
    ) -> Result<Vec<Row>, DbError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let first = others.len() + 1;
        if self.dialect == Dialect::Postgres {
            let values = others.into_iter().chain([Value::Many(wanted)]);
            return self.all(sql(&format!("= ANY(${first})")), values).await;
        }
        let mut found = Vec::new();
        for these in in_runs(&wanted) {
            let condition = format!("IN ({})", crate::marks(these.len(), first));
            found.extend(self.all(sql(&condition), others.iter().chain(these).cloned()).await?);
        }
        Ok(found)
    }

    /// The first row of a query.
    pub async fn one(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, DbError> {
        Ok(self.all(sql, values).await?.into_iter().next())
    }

    /// Runs a statement once for each of many rows of `columns` values, in their order. On PostgreSQL the rows are sent one
    /// behind the other, without waiting for each other's answers. Returns how many rows it touched.
    pub async fn run_each(&self, sql: &str, values: Vec<Value>, columns: usize) -> Result<u64, DbError> {
        let Tx::Postgres(tx) = &self.tx else { return self.run_over(values, columns, |_| sql.to_owned()).await };
        let touched = join_all(values.chunks(columns).map(|row| tx.run(sql, row))).await;
        let sum = |sum, one| both(sum, one).map(|(sum, touched)| sum + touched);
        self.writes.seen(touched.into_iter().fold(Ok(0), sum))
    }
}

/// A view of everything as it was at one moment. It changes nothing.
pub struct Snapshot {
    view: View,
    // The place of SQLite's reader; dropped after its connection.
    _place: Option<OwnedSemaphorePermit>,
}

enum View {
    Postgres(PgTx),
    /// std mutex: held for one query, on a thread that may block.
    Sqlite(Arc<Mutex<Connection>>),
}

impl Snapshot {
    pub(crate) const fn postgres(tx: PgTx) -> Self {
        Self { view: View::Postgres(tx), _place: None }
    }

    pub(crate) fn sqlite(connection: Connection, place: OwnedSemaphorePermit) -> Self {
        Self { view: View::Sqlite(Arc::new(Mutex::new(connection))), _place: Some(place) }
    }

    /// Runs a query.
    pub async fn all(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, DbError> {
        match &self.view {
            View::Postgres(tx) => tx.all(&sql, &values).await,
            View::Sqlite(connection) => {
                let connection = Arc::clone(connection);
                blocking(move || {
                    let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                    Ok(sqlite::all(&connection, &sql, &values)?)
                })
                .await
            }
        }
    }
}
