//! Holds: the handle to everything that is remembered, which gives those to its parts.

use std::path::Path;

use batchin_db::{Db, OpenError, Options, Outage};

use crate::{
    Accounts, AdminLog, Agreement, Alerts, Answers, AuditRows, AutoTopups, Balances, BatchRows, Chores, Claims, Credit,
    DeliveryLog, Deposits, Drains, Endings, FileRows, FilmClaims, FilmRows, Inbox, Keys, Ledger, Nodes, Openings,
    Outbox, Prices, Purses, Statements, StoreError, Topups, Usage, Voices, schema::MIGRATIONS,
};

/// All that is remembered. Held by the server, which gives each part the handles that it needs; they are cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: Db,
}

/// Whether the database is there. Held by who tells of this node's health.
#[derive(Clone)]
pub struct Pulse {
    db: Db,
}

macro_rules! handles {
    ($($name:ident: $handle:ident),+ $(,)?) => {
        impl Store {
            $(
                #[doc = concat!("See [`", stringify!($handle), "`].")]
                pub fn $name(&self) -> $handle {
                    $handle { db: self.db.clone() }
                }
            )+
        }
    };
}

handles! {
    accounts: Accounts,
    keys: Keys,
    credit: Credit,
    balances: Balances,
    topups: Topups,
    inbox: Inbox,
    deposits: Deposits,
    auto_topups: AutoTopups,
    alerts: Alerts,
    audit_rows: AuditRows,
    admin_log: AdminLog,
    purses: Purses,
    prices: Prices,
    outbox: Outbox,
    delivery_log: DeliveryLog,
    usage: Usage,
    statements: Statements,
    answers: Answers,
    voices: Voices,
    file_rows: FileRows,
    batch_rows: BatchRows,
    openings: Openings,
    claims: Claims,
    chores: Chores,
    endings: Endings,
    film_rows: FilmRows,
    film_claims: FilmClaims,
    drains: Drains,
    ledger: Ledger,
    nodes: Nodes,
    agreement: Agreement,
    pulse: Pulse,
}

impl Store {
    /// Opens the database; with `migrate` brings it up to date first. A SQLite file is created if it is not there.
    pub async fn connect(options: Options, migrate: bool) -> Result<Self, OpenError> {
        Ok(Self { db: Db::open(options, MIGRATIONS, migrate).await? })
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

impl Pulse {
    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.ping().await
    }

    /// Why the database takes no writes, as far as the latest ones have shown. A node writes at least as often as it
    /// renews its lease.
    pub fn outage(&self) -> Option<Outage> {
        self.db.outage()
    }
}
