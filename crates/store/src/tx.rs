//! Holds: a write transaction, on a connection of the pool or on SQLite's own.

use sea_orm::{ConnectionTrait, DatabaseTransaction, ExecResult, Value};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    StoreError,
    dialect::{Dialect, runs},
    own::OwnTx,
    row::Row,
};

/// A write transaction and its place in the queue of writers. Dropped, it is rolled back.
pub(crate) struct WriteTx {
    pub(crate) dialect: Dialect,
    tx: Tx,
    // Dropped after `tx`, whose rollback is under way by then.
    _permit: OwnedSemaphorePermit,
}

/// Where it runs.
pub(crate) enum Tx {
    /// Statements are sent away and their answers awaited.
    Pooled(DatabaseTransaction),
    /// Statements run here and now; what is awaited is there already.
    Own(OwnTx),
}

impl WriteTx {
    pub(crate) const fn new(dialect: Dialect, tx: Tx, permit: OwnedSemaphorePermit) -> Self {
        Self { dialect, tx, _permit: permit }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self.tx {
            Tx::Pooled(tx) => tx.commit().await.map_err(StoreError::of_commit),
            Tx::Own(tx) => tx.commit(),
        }
    }

    /// Ends it without a trace, and its locks with it: of a transaction that is dropped they linger on PostgreSQL until
    /// its connection is used again, and who skips locked rows would not see what nobody is at.
    pub(crate) async fn leave(self) -> Result<(), StoreError> {
        match self.tx {
            Tx::Pooled(tx) => Ok(tx.rollback().await?),
            Tx::Own(tx) => {
                drop(tx);
                Ok(())
            }
        }
    }

    /// Runs a statement; returns how many rows it touched.
    pub(crate) async fn run(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, StoreError> {
        match &self.tx {
            Tx::Pooled(tx) => {
                let done: ExecResult = tx.execute_raw(self.dialect.statement(sql, values)).await?;
                Ok(done.rows_affected())
            }
            Tx::Own(tx) => tx.run(&sql.into(), &values.into_iter().collect::<Vec<_>>()),
        }
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
            Tx::Own(tx) => return tx.run_each(&sql(1), values.chunks(columns)),
            Tx::Pooled(tx) => tx,
        };
        let (mut touched, rows) = (0, values.len() / columns);
        let mut values = values.into_iter();
        for run in runs(rows) {
            let statement = self.dialect.statement(sql(run), values.by_ref().take(run * columns));
            touched += tx.execute_raw(statement).await?.rows_affected();
        }
        Ok(touched)
    }

    pub(crate) async fn all(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, StoreError> {
        match &self.tx {
            Tx::Pooled(tx) => {
                let rows = tx.query_all_raw(self.dialect.statement(sql, values)).await?;
                Ok(rows.into_iter().map(Row::Pooled).collect())
            }
            Tx::Own(tx) => tx.all(&sql.into(), &values.into_iter().collect::<Vec<_>>()),
        }
    }

    pub(crate) async fn one(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, StoreError> {
        match &self.tx {
            Tx::Pooled(tx) => Ok(tx.query_one_raw(self.dialect.statement(sql, values)).await?.map(Row::Pooled)),
            Tx::Own(tx) => {
                let rows = tx.all(&sql.into(), &values.into_iter().collect::<Vec<_>>())?;
                Ok(rows.into_iter().next())
            }
        }
    }
}
