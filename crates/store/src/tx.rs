//! Holds: a write transaction, on a connection of PostgreSQL's pool or on SQLite's own.

use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, ExecResult, Value};

use crate::{
    StoreError,
    dialect::{Dialect, runs},
    own::OwnTx,
    row::Row,
    writes::Writes,
};

/// A write transaction and, on SQLite, its place in the queue of writers. Dropped, it is rolled back.
pub(crate) struct WriteTx {
    pub(crate) dialect: Dialect,
    tx: Tx,
    writes: Arc<Writes>,
}

/// Where it runs.
pub(crate) enum Tx {
    /// PostgreSQL: statements are sent away and their answers awaited.
    Pooled(DatabaseTransaction),
    /// SQLite, from a thread that may block: statements run here and now; what is awaited is there already.
    Own(OwnTx),
    /// SQLite, from a thread that must not block: each statement runs on one that may. Whoever leaves in the middle of a
    /// statement leaves the transaction to it, which ends it before the next writer's turn.
    Lent(Arc<OwnTx>),
}

impl WriteTx {
    pub(crate) const fn new(dialect: Dialect, tx: Tx, writes: Arc<Writes>) -> Self {
        Self { dialect, tx, writes }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        let committed = match self.tx {
            Tx::Pooled(tx) => tx.commit().await.map_err(StoreError::of_commit),
            Tx::Own(tx) => tx.commit(),
            Tx::Lent(tx) => blocking(move || tx.commit()).await,
        };
        self.writes.committed(&committed);
        committed
    }

    /// Ends it without a trace, and its locks with it: of a transaction that is dropped they linger on PostgreSQL until
    /// its connection is used again, and who skips locked rows would not see what nobody is at.
    pub(crate) async fn leave(self) -> Result<(), StoreError> {
        match self.tx {
            Tx::Pooled(tx) => Ok(tx.rollback().await?),
            Tx::Own(_) | Tx::Lent(_) => Ok(()),
        }
    }

    /// Runs a statement; returns how many rows it touched.
    pub(crate) async fn run(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, StoreError> {
        let done = match &self.tx {
            Tx::Pooled(tx) => {
                let done: Result<ExecResult, DbErr> = tx.execute_raw(self.dialect.statement(sql, values)).await;
                done.map(|done| done.rows_affected()).map_err(StoreError::from)
            }
            Tx::Own(tx) => tx.run(&sql.into(), &values.into_iter().collect::<Vec<_>>()),
            Tx::Lent(tx) => {
                let (tx, sql, values) = (Arc::clone(tx), sql.into(), values.into_iter().collect::<Vec<_>>());
                blocking(move || tx.run(&sql, &values)).await
            }
        };
        self.writes.seen(done)
    }

    /// Runs a statement over many rows of `columns` values each; `sql` writes it for a number of rows. Returns how many
    /// rows it touched.
    pub(crate) async fn run_over(
        &self,
        values: Vec<Value>,
        columns: usize,
        sql: impl Fn(usize) -> String,
    ) -> Result<u64, StoreError> {
        let tx = match &self.tx {
            // Not even prepared.
            _ if values.is_empty() => return Ok(0),
            Tx::Own(tx) => return self.writes.seen(tx.run_each(&sql(1), values.chunks(columns))),
            Tx::Lent(tx) => {
                let (tx, sql) = (Arc::clone(tx), sql(1));
                return self.writes.seen(blocking(move || tx.run_each(&sql, values.chunks(columns))).await);
            }
            Tx::Pooled(tx) => tx,
        };
        let (mut touched, rows) = (0, values.len() / columns);
        let mut values = values.into_iter();
        for run in runs(rows) {
            let statement = self.dialect.statement(sql(run), values.by_ref().take(run * columns));
            let done = tx.execute_raw(statement).await.map_err(StoreError::from);
            touched += self.writes.seen(done)?.rows_affected();
        }
        Ok(touched)
    }

    pub(crate) async fn all(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let found = match &self.tx {
            Tx::Pooled(tx) => {
                let rows = tx.query_all_raw(self.dialect.statement(sql, values)).await;
                rows.map(|rows| rows.into_iter().map(Row::Pooled).collect()).map_err(StoreError::from)
            }
            Tx::Own(tx) => tx.all(&sql.into(), &values.into_iter().collect::<Vec<_>>()),
            Tx::Lent(tx) => {
                let (tx, sql, values) = (Arc::clone(tx), sql.into(), values.into_iter().collect::<Vec<_>>());
                blocking(move || tx.all(&sql, &values)).await
            }
        };
        self.writes.seen(found)
    }

    pub(crate) async fn one(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, StoreError> {
        match &self.tx {
            Tx::Pooled(tx) => {
                let row = tx.query_one_raw(self.dialect.statement(sql, values)).await.map_err(StoreError::from);
                Ok(self.writes.seen(row)?.map(Row::Pooled))
            }
            Tx::Own(_) | Tx::Lent(_) => Ok(self.all(sql, values).await?.into_iter().next()),
        }
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| StoreError::Database(DbErr::Custom(cause.to_string())))?
}
