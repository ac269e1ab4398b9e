//! Holds: PostgreSQL's pool, and a transaction on one of its connections.

use std::{pin::pin, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use futures::FutureExt as _;
use tokio_postgres::{Config, Statement, binary_copy::BinaryCopyInWriter, types::ToSql};

use crate::{DbError, Row, Value, tls::Tls};

/// How long a verb waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that has been idle for longer is tried before it is used; one in use would have shown that it is gone.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
/// PostgreSQL ends a transaction whose node was stopped in the middle of it, so that its locks hold nobody up; keeps to
/// itself what it would note about statements that do what they should; and compiles none of them, which takes it a tenth of
/// a second where they take milliseconds.
const SESSION: &str = "-c idle_in_transaction_session_timeout=15s -c client_min_messages=warning -c jit=off";
/// Statement texts that stay prepared on each connection: all hot ones, with room. Beyond them all are prepared anew.
const PREPARED_STATEMENTS: usize = 512;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool,
}

/// A transaction. Dropped, it is rolled back: that is sent at once, and whoever has the connection next comes after it.
pub(crate) struct PgTx {
    client: Box<Object>,
    has_ended: bool,
}

impl Postgres {
    pub(crate) fn new(mut config: Config, tls: Tls, connections: u32) -> Result<Self, DbError> {
        let options = config.get_options().map_or_else(String::new, |given| format!("{given} "));
        config.options(format!("{options}{SESSION}")).connect_timeout(ACQUIRE_TIMEOUT);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, tls.connector(), recycling))
            .max_size(connections.max(2) as usize)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .create_timeout(Some(ACQUIRE_TIMEOUT))
            .recycle_timeout(Some(ACQUIRE_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .pre_recycle(Hook::async_fn(|client, metrics| {
                Box::pin(async move {
                    if metrics.last_used() < TEST_AFTER_IDLE {
                        return Ok(());
                    }
                    client.simple_query("").await.map(drop).map_err(HookError::Backend)
                })
            }))
            .build();
        Ok(Self { pool: pool.map_err(|cause| DbError::NoConnection(cause.into()))? })
    }

    async fn client(&self) -> Result<Object, DbError> {
        self.pool.get().await.map_err(|cause| match cause {
            PoolError::Backend(cause) => DbError::Postgres(cause),
            cause => DbError::NoConnection(cause.into()),
        })
    }

    pub(crate) async fn ping(&self) -> Result<(), DbError> {
        self.client().await?.simple_query("").await.map(drop).map_err(DbError::Postgres)
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// Runs a query outside of a transaction.
    pub(crate) async fn all(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DbError> {
        all(&self.client().await?, sql, values).await
    }

    pub(crate) async fn begin(&self) -> Result<PgTx, DbError> {
        self.begin_with("BEGIN").await
    }

    /// A transaction that sees everything as it is now, and changes nothing.
    pub(crate) async fn snapshot(&self) -> Result<PgTx, DbError> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    async fn begin_with(&self, begin: &str) -> Result<PgTx, DbError> {
        // Made first: whoever is dropped while it begins leaves no transaction behind.
        let tx = PgTx { client: Box::new(self.client().await?), has_ended: false };
        tx.client.batch_execute(begin).await.map_err(DbError::Postgres)?;
        Ok(tx)
    }
}

impl PgTx {
    pub(crate) async fn commit(mut self) -> Result<(), DbError> {
        // It is sent as soon as it is awaited; what becomes of it is no longer up to us.
        self.has_ended = true;
        self.client.batch_execute("COMMIT").await.map_err(DbError::of_commit)
    }

    pub(crate) async fn leave(mut self) -> Result<(), DbError> {
        self.has_ended = true;
        self.client.batch_execute("ROLLBACK").await.map_err(DbError::Postgres)
    }

    pub(crate) async fn run(&self, sql: &str, values: &[Value]) -> Result<u64, DbError> {
        let statement = prepared(&self.client, sql, values).await?;
        let values = parameters(values);
        self.client.execute_raw(&statement, values).await.map_err(DbError::of_statement)
    }

    /// Sends rows of `columns` values each after a `COPY`; returns how many were added.
    pub(crate) async fn copy(&self, sql: &str, values: &[Value], columns: usize) -> Result<u64, DbError> {
        let types: Vec<_> = values.iter().take(columns).map(Value::postgres_type).collect();
        let statement = prepared(&self.client, sql, &[]).await?;
        let sink = self.client.copy_in(&statement).await.map_err(DbError::of_statement)?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        let sent = async {
            for row in values.chunks(columns) {
                writer.as_mut().write_raw(parameters(row)).await?;
            }
            writer.finish().await
        };
        sent.await.map_err(DbError::of_statement)
    }

    pub(crate) async fn all(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, DbError> {
        all(&self.client, sql, values).await
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if !self.has_ended {
            // Sent when it is first polled; nobody waits for the answer.
            let _ = self.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

async fn all(client: &Object, sql: &str, values: &[Value]) -> Result<Vec<Row>, DbError> {
    let statement = prepared(client, sql, values).await?;
    let rows = client.query(&statement, &parameters(values).collect::<Vec<_>>()).await;
    let rows = rows.map_err(DbError::of_statement)?;
    Ok(rows.into_iter().map(Row::postgres).collect())
}

/// The statement for values of these kinds.
async fn prepared(client: &Object, sql: &str, values: &[Value]) -> Result<Statement, DbError> {
    if client.statement_cache.size() > PREPARED_STATEMENTS {
        client.statement_cache.clear();
    }
    let types: Vec<_> = values.iter().map(Value::postgres_type).collect();
    client.prepare_typed_cached(sql, &types).await.map_err(DbError::of_statement)
}

fn parameters(values: &[Value]) -> impl ExactSizeIterator<Item = &(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync))
}
