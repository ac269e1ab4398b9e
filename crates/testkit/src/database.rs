//! Holds: a fresh database for each test, and a cluster of its own for a test that stops one.

use std::{
    path::{Path, PathBuf},
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
pub struct Database {
    /// As `database.url` has it.
    pub url: String,
    cluster: Option<(String, String)>,
}

impl Database {
    /// One on this backend; a file of SQLite lies in the folder.
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
        Self::of(&cluster)
    }

    fn of(cluster: &str) -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("batchin_test_{}_{number}", std::process::id());
        psql(cluster, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        psql(cluster, &format!("CREATE DATABASE {name}"));
        let (server, _) = cluster.rsplit_once('/').expect("the URL of a cluster ends with a database");
        Self { url: format!("{server}/{name}"), cluster: Some((cluster.to_owned(), name)) }
    }

    /// Runs a statement in it, beside the server.
    pub fn run(&self, statement: &str) {
        match self.url.strip_prefix("sqlite:") {
            Some(file) => sqlite3(file, statement),
            None => psql(&self.url, statement),
        }
    }

    /// Ends every connection to it. Only where there are connections.
    pub fn cut_connections(&self) {
        let (cluster, name) = self.cluster.as_ref().expect("a database on the cluster");
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        psql(cluster, &all);
    }
}

/// A PostgreSQL of its own, for a test that stops it. Stopped and removed when dropped.
pub struct Cluster {
    folder: PathBuf,
    url: String,
}

impl Cluster {
    /// Starts one, as `make test` does.
    pub fn start() -> Self {
        // Not in the test's own folder, which PostgreSQL's user may not look into.
        let folder = std::env::temp_dir().join(format!("batchin-cluster-{}", std::process::id()));
        let mut cluster = Self { folder, url: String::new() };
        cluster.start_again();
        cluster
    }

    /// A database in it.
    pub fn database(&self) -> Database {
        let mut database = Database::of(&self.url);
        // It goes with its cluster.
        database.cluster = None;
        database
    }

    /// Stops it as if the power had failed.
    pub fn crash(&self) {
        self.script("crash");
    }

    /// Starts it where it was.
    pub fn start_again(&mut self) {
        self.url = self.script("start");
    }

    fn script(&self, verb: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/test-postgres.sh");
        let ran = Command::new(script).arg(verb).arg(&self.folder).output().expect("the script can be started");
        assert!(ran.status.success(), "{script} {verb}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("stop");
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

/// Python brings SQLite's shell, more or less.
fn sqlite3(file: &str, statement: &str) {
    let script = "import sqlite3, sys; with_it = sqlite3.connect(sys.argv[1], timeout=30); with_it.execute(sys.argv[2]); with_it.commit()";
    let ran = Command::new("python3").args(["-c", script, file, statement]).output();
    let ran = ran.expect("python3 can be started; run the tests with `make test`");
    assert!(ran.status.success(), "sqlite3: {}", String::from_utf8_lossy(&ran.stderr));
}

fn psql(cluster: &str, statement: &str) {
    let ran = Command::new("psql").args(["--quiet", "--no-psqlrc", cluster, "--command", statement]).output();
    let ran = ran.expect("psql can be started; run the tests with `make test`");
    assert!(ran.status.success(), "psql: {}", String::from_utf8_lossy(&ran.stderr));
}
