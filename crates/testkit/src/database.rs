//! Holds: a fresh database for each test.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

/// The two databases that everything must hold on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One file.
    Sqlite,
    /// A database of its own in the cluster of `BATCHIN_TEST_POSTGRES`.
    Postgres,
}

static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A database that is removed with the test.
pub(crate) struct Database {
    pub(crate) url: String,
    cluster: Option<(String, String)>,
}

impl Database {
    pub(crate) fn new(backend: Backend, folder: &Path) -> Self {
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
        let name = format!("batchin_api_{}_{number}", std::process::id());
        psql(&cluster, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        psql(&cluster, &format!("CREATE DATABASE {name}"));
        let (server, _) = cluster.rsplit_once('/').expect("the URL of a cluster ends with a database");
        Self { url: format!("{server}/{name}"), cluster: Some((cluster.clone(), name)) }
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
