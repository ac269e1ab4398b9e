//! Holds: opening a database by its URL, and how queries and transactions begin.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    DbError, Dialect, Outage, Rerun, Row, Snapshot, Value, WriteTx,
    postgres::Postgres,
    retried,
    retry::{RERUN_FOR, RERUN_PAUSE},
    sqlite::{self, OwnConnection, Readers, blocking},
    tls::{self, UrlError},
    tx::{self, Tx},
    writes::Writes,
};

/// Where the database is.
#[derive(Clone)]
pub struct Options {
    /// `sqlite:FILE` or `postgres://…`.
    pub url: String,
    /// Pool size on PostgreSQL, two at least.
    pub max_connections: u32,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names neither SQLite nor PostgreSQL.
    #[error("the database URL must begin with sqlite: or postgres://")]
    UnknownScheme,
    /// Each connection would have a database of its own.
    #[error("the database URL must name a file: SQLite in memory is not taken")]
    NoFile,
    /// The URL of PostgreSQL does not say what it means, or names a file that cannot be used.
    #[error("the database URL cannot be used")]
    Url(#[source] UrlError),
    /// Nothing answered, or it refused.
    #[error("the database cannot be opened")]
    Open(#[source] DbError),
    /// The schema could not be brought up to date.
    #[error("the database schema cannot be brought up to date")]
    Migrate(#[source] DbError),
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

/// A database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    on: On,
    writes: Arc<Writes>,
}

#[derive(Clone)]
enum On {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

#[derive(Clone)]
struct Sqlite {
    writer: Arc<OwnConnection>,
    /// One permit, so that our own writers queue fairly instead of spinning on the file lock.
    turns: Arc<Semaphore>,
    readers: Readers,
}

impl Db {
    /// Opens the database; with `migrate` brings it up to date with these migrations first. A SQLite file is created if
    /// it is not there.
    pub async fn open(options: Options, migrations: &[&str], migrate: bool) -> Result<Self, OpenError> {
        let on = if let Some(file) = options.url.strip_prefix("sqlite:") {
            On::Sqlite(Sqlite::open(file_of(file)?).await?)
        } else if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
            let (config, tls) = tls::config_of(&options.url).map_err(OpenError::Url)?;
            On::Postgres(Postgres::new(config, tls, options.max_connections).map_err(OpenError::Open)?)
        } else {
            return Err(OpenError::UnknownScheme);
        };
        let db = Self { on, writes: Arc::default() };
        db.ping().await.map_err(OpenError::Open)?;
        if migrate {
            db.migrate(migrations).await.map_err(OpenError::Migrate)?;
        }
        let found = db.schema_version().await.map_err(OpenError::Open)?;
        let known = migrations.len();
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(OpenError::TooOld { found, known }),
            std::cmp::Ordering::Equal => Ok(db),
            std::cmp::Ordering::Greater => Err(OpenError::TooNew { found, known }),
        }
    }

    /// Which database it is.
    pub const fn dialect(&self) -> Dialect {
        match self.on {
            On::Sqlite(_) => Dialect::Sqlite,
            On::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        match &self.on {
            On::Sqlite(sqlite) => sqlite.readers.all("SELECT 1".to_owned(), Vec::new()).await.map(drop),
            On::Postgres(postgres) => postgres.ping().await,
        }
    }

    /// Why the database takes no writes, as far as the latest ones have shown.
    pub fn outage(&self) -> Option<Outage> {
        self.writes.outage()
    }

    /// SQLite's file.
    pub fn sqlite_file(&self) -> Option<&Path> {
        match &self.on {
            On::Sqlite(sqlite) => Some(sqlite.writer.path()),
            On::Postgres(_) => None,
        }
    }

    /// Lets go of all connections.
    pub async fn close(&self) -> Result<(), DbError> {
        match self.on.clone() {
            // The last one to close writes the log back into the file.
            On::Sqlite(sqlite) => {
                blocking(move || {
                    sqlite.readers.close();
                    sqlite.writer.close();
                    Ok(())
                })
                .await
            }
            On::Postgres(postgres) => {
                postgres.close();
                Ok(())
            }
        }
    }

    /// Begins a write transaction.
    pub async fn write(&self) -> Result<WriteTx, DbError> {
        let begun = match &self.on {
            On::Sqlite(sqlite) => {
                let (writer, turn) = (Arc::clone(&sqlite.writer), sqlite.turn().await?);
                blocking(move || writer.begin(turn)).await.map(|tx| Tx::Sqlite(tx::Sqlite::Lent(Arc::new(tx))))
            }
            On::Postgres(postgres) => postgres.begin().await.map(Tx::Postgres),
        };
        Ok(WriteTx::new(self.dialect(), self.writes.seen(begun)?, Arc::clone(&self.writes)))
    }

    /// Runs one write transaction to its end: on SQLite all of it on one thread, where a statement is a call and not a
    /// message to another thread and back.
    pub async fn write_whole<T, W, F>(&self, work: W) -> Result<T, DbError>
    where
        T: Send + 'static,
        W: FnOnce(WriteTx) -> F + Send + 'static,
        F: Future<Output = Result<T, DbError>>,
    {
        let On::Sqlite(sqlite) = &self.on else { return work(self.write().await?).await };
        let (writer, turn, here) = (Arc::clone(&sqlite.writer), sqlite.turn().await?, Handle::current());
        let writes = Arc::clone(&self.writes);
        blocking(move || {
            let tx = Tx::Sqlite(tx::Sqlite::Own(writes.seen(writer.begin(turn))?));
            here.block_on(work(WriteTx::new(Dialect::Sqlite, tx, writes)))
        })
        .await
    }

    /// A view of everything as it is now, for many queries.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        match &self.on {
            On::Sqlite(sqlite) => {
                let (connection, place) = sqlite.readers.snapshot().await?;
                Ok(Snapshot::sqlite(connection, place))
            }
            On::Postgres(postgres) => postgres.snapshot().await.map(Snapshot::postgres),
        }
    }

    /// Runs a query outside of a transaction.
    pub async fn all(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, DbError> {
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        retried(Rerun::Harmless, || async {
            match &self.on {
                On::Sqlite(sqlite) => sqlite.readers.all(sql.clone(), values.clone()).await,
                On::Postgres(postgres) => postgres.all(&sql, &values).await,
            }
        })
        .await
    }

    /// The first row of a query outside of a transaction.
    pub async fn one(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, DbError> {
        Ok(self.all(sql, values).await?.into_iter().next())
    }
}

impl Sqlite {
    async fn open(file: PathBuf) -> Result<Self, OpenError> {
        let (began, mut pause) = (Instant::now(), RERUN_PAUSE);
        loop {
            let path = file.clone();
            let created = tokio::task::spawn_blocking(move || sqlite::create(&path)).await;
            match created.map_err(|cause| OpenError::Open(DbError::Thread(cause)))? {
                Ok(()) => break,
                Err((_, true)) if began.elapsed() + pause < RERUN_FOR => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err((cause, _)) => return Err(OpenError::Open(cause)),
            }
        }
        let (readers, turns) = (Readers::at(&file), Arc::new(Semaphore::new(1)));
        Ok(Self { writer: Arc::new(OwnConnection::at(file)), turns, readers })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, DbError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|closed| DbError::NoConnection(closed.into()))
    }
}

/// The file that a URL of SQLite names after its scheme.
fn file_of(named: &str) -> Result<PathBuf, OpenError> {
    let named = named.strip_prefix("//").unwrap_or(named);
    let (file, parameters) = named.split_once('?').unwrap_or((named, ""));
    if file.is_empty() || file == ":memory:" || parameters.contains("mode=memory") {
        return Err(OpenError::NoFile);
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_sqlite_names_a_file() {
        for (named, file) in [("a.db", "a.db"), ("///var/b.db", "/var/b.db"), ("c d.db?mode=rwc", "c d.db")] {
            assert_eq!(file_of(named).unwrap(), Path::new(file));
        }
        for named in ["", "//", ":memory:", "x?mode=memory"] {
            assert!(matches!(file_of(named), Err(OpenError::NoFile)), "{named}");
        }
    }
}
