//! Holds: the handle to everything that is remembered.

use std::path::Path;

use batchin_db::{Db, OpenError, Options, Outage};

use crate::{StoreError, schema::MIGRATIONS};

/// What is remembered. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: Db,
}

impl Store {
    /// Opens the database; with `migrate` brings it up to date first. A SQLite file is created if it is not there.
    pub async fn connect(options: Options, migrate: bool) -> Result<Self, OpenError> {
        Ok(Self { db: Db::open(options, MIGRATIONS, migrate).await? })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await
    }

    /// Why the database takes no writes, as far as the latest ones have shown. A node writes at least as often as it
    /// renews its lease.
    pub fn outage(&self) -> Option<Outage> {
        self.db.outage()
    }

    /// SQLite's file.
    pub fn sqlite_file(&self) -> Option<&Path> {
        self.db.sqlite_file()
    }

    /// Lets go of all connections.
    pub async fn close(self) -> Result<(), StoreError> {
        self.db.close().await
    }
}
