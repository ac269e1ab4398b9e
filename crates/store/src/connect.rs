//! Holds: the connection, its pragmas, and how transactions begin.

use std::{future::Future, path::Path, str::FromStr, sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, RuntimeErr, TransactionTrait, Value,
    sqlx::sqlite::SqliteConnectOptions,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

pub(crate) use crate::tx::WriteTx;
use crate::{
    Outage, StoreError,
    dialect::Dialect,
    error::is_busy,
    own::OwnConnection,
    row::Row,
    schema,
    tx::{Tx, blocking},
    writes::Writes,
};

/// How long a statement waits for another process's write lock on SQLite before it fails as busy.
pub(crate) const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a verb waits for a pooled connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// SQLite has one writer at a time; more readers than cores gain nothing.
const SQLITE_CONNECTIONS: u32 = 5;
/// Page cache of one connection, in KiB as SQLite writes it: the pages that the next commit touches stay, whatever a
/// report reads in between.
pub(crate) const SQLITE_CACHE: &str = "-8192";
/// A connection that has been idle for longer is tried before it is used; one in use would have shown that it is gone.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
/// PostgreSQL ends a transaction whose node was stopped in the middle of it, so that its locks hold nobody up.
const IDLE_IN_TRANSACTION: &str = "15s";
/// For how long a verb is run again when the database was busy or away, so that a client's request survives a failover
/// that is quick, and is answered in time when it is not.
const RERUN_FOR: Duration = Duration::from_secs(5);
/// First pause before a verb is run again; doubles each time.
const RERUN_PAUSE: Duration = Duration::from_millis(10);
/// Statement texts that stay prepared on each connection: all hot ones in their eight run lengths, with room.
const PREPARED_STATEMENTS: usize = 256;

/// Where the database is.
#[derive(Clone)]
pub struct ConnectOptions {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// Pool size on PostgreSQL.
    pub max_connections: u32,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL names neither SQLite nor PostgreSQL.
    #[error("the database URL must begin with sqlite: or postgres://")]
    UnknownScheme,
    /// Nothing answered, or it refused.
    #[error("the database cannot be opened")]
    Open(#[source] DbErr),
    /// The schema could not be brought up to date.
    #[error("the database schema cannot be brought up to date")]
    Migrate(#[source] StoreError),
    /// A newer version of this program has been here.
    #[error("the database has schema version {found}, this program knows up to {known}: run the newer version")]
    TooNew {
        /// What the database has.
        found: usize,
        /// What this program has.
        known: usize,
    },
    /// The schema is older than this program and `migrate` was not asked for.
    #[error("the database has schema version {found}, this program needs {known}: run `batchin migrate`")]
    TooOld {
        /// What the database has.
        found: usize,
        /// What this program has.
        known: usize,
    },
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: DatabaseConnection,
    pub(crate) dialect: Dialect,
    /// SQLite: the connection that everything is written on; the pool's only read.
    own: Option<Own>,
    writes: Arc<Writes>,
}

/// SQLite's one writer.
#[derive(Clone)]
struct Own {
    connection: Arc<OwnConnection>,
    /// One permit, so that our own writers queue fairly instead of spinning on the file lock.
    writers: Arc<Semaphore>,
}

/// Whether a verb may be run again when nothing was heard of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rerun {
    /// A second run finds what the first did, or does the same.
    Harmless,
    /// Only when the first was surely rolled back.
    IfRolledBack,
}

/// Runs a verb, and runs it again while it fails in passing.
pub(crate) async fn retried<T, W>(rerun: Rerun, verb: impl Fn() -> W) -> Result<T, StoreError>
where
    W: Future<Output = Result<T, StoreError>>,
{
    let (began, mut pause) = (Instant::now(), RERUN_PAUSE);
    loop {
        match verb().await {
            Err(StoreError::Unsure(cause)) if rerun == Rerun::IfRolledBack => return Err(StoreError::Unsure(cause)),
            Err(cause) if cause.is_passing() && began.elapsed() + pause < RERUN_FOR => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
}

impl Store {
    /// Opens the database; with `migrate` brings it up to date first. A SQLite file is created if it is not there.
    pub async fn connect(options: ConnectOptions, migrate: bool) -> Result<Self, ConnectError> {
        let sqlite = options.url.starts_with("sqlite:");
        let own = if sqlite { Some(own_connection(&options.url)?) } else { None };
        if !sqlite && !options.url.starts_with("postgres://") && !options.url.starts_with("postgresql://") {
            return Err(ConnectError::UnknownScheme);
        }
        let mut connect = sea_orm::ConnectOptions::new(options.url);
        connect
            .sqlx_logging(false)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
            .max_connections(if sqlite { SQLITE_CONNECTIONS } else { options.max_connections.max(2) });
        connect.map_sqlx_sqlite_opts(|sqlite| {
            use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
            sqlite
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // FULL: a commit is on the disk before anybody is told of it.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(SQLITE_BUSY_TIMEOUT)
                .pragma("cache_size", SQLITE_CACHE)
                // The driver counts open transactions beside SQLite, and miscounts where SQLite rolls back by itself.
                .pragma("query_only", "ON")
                .statement_cache_capacity(PREPARED_STATEMENTS)
        });
        connect.map_sqlx_postgres_opts(|postgres| {
            postgres
                .statement_cache_capacity(PREPARED_STATEMENTS)
                .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION)])
        });
        let db = open(connect).await.map_err(ConnectError::Open)?;
        let dialect = match db.get_database_backend() {
            DbBackend::Postgres => Dialect::Postgres,
            _ => Dialect::Sqlite,
        };
        let store = Self { db, dialect, own, writes: Arc::default() };
        store.bring_up_to_date(migrate).await?;
        Ok(store)
    }

    async fn bring_up_to_date(&self, migrate: bool) -> Result<(), ConnectError> {
        if migrate {
            let run = retried(Rerun::Harmless, || async {
                let tx = self.write().await?;
                schema::migrate(&tx).await?;
                tx.commit().await
            });
            run.await.map_err(ConnectError::Migrate)?;
        }
        let found = schema::version(&self.db, self.dialect).await.map_err(ConnectError::Open)?;
        let known = schema::known();
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(ConnectError::TooOld { found, known }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(ConnectError::TooNew { found, known }),
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await.map_err(StoreError::from)
    }

    /// Why the database takes no writes, as far as the latest ones have shown. A node writes at least as often as it
    /// renews its lease.
    pub fn outage(&self) -> Option<Outage> {
        self.writes.outage()
    }

    /// SQLite's file.
    pub fn sqlite_file(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.connection.path())
    }

    /// Lets go of all connections.
    pub async fn close(self) -> Result<(), StoreError> {
        if let Some(own) = &self.own {
            own.connection.close();
        }
        self.db.close().await.map_err(StoreError::from)
    }

    pub(crate) async fn write(&self) -> Result<WriteTx, StoreError> {
        let begun = match &self.own {
            Some(own) => {
                let (connection, turn) = (Arc::clone(&own.connection), own.turn().await?);
                blocking(move || connection.begin(turn)).await.map(|tx| Tx::Lent(Arc::new(tx)))
            }
            None => self.db.begin().await.map(Tx::Pooled).map_err(StoreError::from),
        };
        Ok(WriteTx::new(self.dialect, self.writes.seen(begun)?, Arc::clone(&self.writes)))
    }

    /// Runs one write transaction to its end: on SQLite all of it on one thread, where a statement is a call and not a
    /// message to another thread and back.
    pub(crate) async fn write_whole<T, W, F>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(WriteTx) -> F + Send + 'static,
        F: Future<Output = Result<T, StoreError>>,
    {
        let Some(own) = &self.own else { return work(self.write().await?).await };
        let (connection, turn, here) = (Arc::clone(&own.connection), own.turn().await?, Handle::current());
        let writes = Arc::clone(&self.writes);
        blocking(move || {
            let tx = Tx::Own(writes.seen(connection.begin(turn))?);
            here.block_on(work(WriteTx::new(Dialect::Sqlite, tx, writes)))
        })
        .await
    }

    pub(crate) async fn all(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.dialect.statement(sql, values);
        let rows = retried(Rerun::Harmless, || async { Ok(self.db.query_all_raw(statement.clone()).await?) }).await?;
        Ok(rows.into_iter().map(Row::Pooled).collect())
    }

    pub(crate) async fn one(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, StoreError> {
        let statement = self.dialect.statement(sql, values);
        let row = retried(Rerun::Harmless, || async { Ok(self.db.query_one_raw(statement.clone()).await?) }).await?;
        Ok(row.map(Row::Pooled))
    }
}

impl Own {
    async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let closed = |_| StoreError::Database(DbErr::Custom("the store is closed".to_owned()));
        Arc::clone(&self.writers).acquire_owned().await.map_err(closed)
    }
}

/// Where SQLite's file is, as the pool reads its URL.
fn own_connection(url: &str) -> Result<Own, ConnectError> {
    let options = SqliteConnectOptions::from_str(url);
    let options = options.map_err(|cause| ConnectError::Open(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(cause)))))?;
    let connection = Arc::new(OwnConnection::at(options.get_filename().to_owned()));
    Ok(Own { connection, writers: Arc::new(Semaphore::new(1)) })
}

/// Opens the pool. On a new SQLite file, whoever comes while another process turns its journal to WAL finds it locked
/// whatever the busy timeout, and tries again.
async fn open(connect: sea_orm::ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let (began, mut pause) = (Instant::now(), RERUN_PAUSE);
    loop {
        match Database::connect(connect.clone()).await {
            Err(cause) if is_locked(&cause) && began.elapsed() + pause < RERUN_FOR => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
}

/// Whether the database is there and busy, and not simply away or wrongly named.
fn is_locked(cause: &DbErr) -> bool {
    let DbErr::Conn(sea_orm::RuntimeErr::SqlxError(e)) = cause else { return false };
    matches!(&**e, sea_orm::sqlx::Error::Database(db) if is_busy(&db.code().unwrap_or_default()))
}
