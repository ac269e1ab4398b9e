//! Holds: a fresh database for each test.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

/// The two databases that everything must hold on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One file, one server.
    Sqlite,
    /// One cluster, any number of servers.
    Postgres,
}

static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A database that is removed with the test.
pub struct Database {
    /// As `database.url` has it.
    pub url: String,
    cluster: Option<(String, String)>,
}

impl Database {
    pub fn new(backend: Backend, folder: &Path) -> Self {
        match backend {
            Backend::Sqlite => Self { url: format!("sqlite:{}", folder.join("batchin.db").display()), cluster: None },
            Backend::Postgres => Self::on_cluster(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the tests are told about their database like the server is")]
    fn on_cluster() -> Self {
        let cluster = std::env::var("BATCHIN_TEST_POSTGRES");
        let cluster = cluster.expect("BATCHIN_TEST_POSTGRES is not set: run the tests with `make test`");
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("batchin_processes_{}_{number}", std::process::id());
        psql(&cluster, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        psql(&cluster, &format!("CREATE DATABASE {name}"));
        let (server, _) = cluster.rsplit_once('/').expect("the URL of a cluster ends with a database");
        Self { url: format!("{server}/{name}"), cluster: Some((cluster, name)) }
    }
}

impl Database {
    /// Ends every connection to it. Only where there are connections.
    pub fn cut_connections(&self) {
        let (cluster, name) = self.cluster.as_ref().expect("a database on the cluster");
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        psql(cluster, &all);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some((cluster, name)) = &self.cluster
            && !std::thread::panicking()
        {
            psql(cluster, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

fn psql(cluster: &str, statement: &str) {
    let ran = Command::new("psql").args(["--quiet", "--no-psqlrc", cluster, "--command", statement]).output();
    let ran = ran.expect("psql can be started; run the tests with `make test`");
    assert!(ran.status.success(), "psql: {}", String::from_utf8_lossy(&ran.stderr));
}
