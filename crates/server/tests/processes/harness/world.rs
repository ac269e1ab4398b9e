//! Holds: everything that one test runs on.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use batchin_sim::SimServer;
use batchin_testkit::{Cluster, Database};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Account, Backend, Bucket, CENT, CLOCK_AHEAD, Disk, Environment, Ledger, Node, Settings, until};

/// Lines of each server's log that a failed test shows.
const LOG_LINES: usize = 40;

/// A database, simulated model servers, a configuration. Nodes and accounts are made from it.
pub struct World {
    /// The model servers.
    pub sims: Vec<SimServer>,
    config: PathBuf,
    blobs: PathBuf,
    environment: Environment,
    nodes: AtomicU64,
    accounts: AtomicU64,
    // After what uses them.
    database: Database,
    folder: TempDir,
}

impl World {
    /// With one simulated model server.
    pub async fn new(backend: Backend, settings: Settings) -> Self {
        Self::with_sims(backend, 1, settings).await
    }

    /// With several.
    pub async fn with_sims(backend: Backend, sims: usize, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(backend, folder.path());
        Self::on(database, folder, sims, settings).await
    }

    /// On a PostgreSQL that is only this test's.
    pub async fn on_cluster(cluster: &Cluster, settings: Settings) -> Self {
        Self::on(cluster.database(), tempfile::tempdir().unwrap(), 1, settings).await
    }

    async fn on(database: Database, folder: TempDir, sims: usize, settings: Settings) -> Self {
        let mut servers = Vec::new();
        for _ in 0..sims {
            servers.push(SimServer::start().await.unwrap());
        }
        let world = Self {
            sims: servers,
            config: folder.path().join("batchin.toml"),
            blobs: folder.path().join("blobs"),
            environment: Environment::new(),
            nodes: AtomicU64::new(0),
            accounts: AtomicU64::new(0),
            database,
            folder,
        };
        world.configure(&settings);
        world
    }

    /// Whatever is started from now on goes by a clock that is so far ahead.
    pub fn with_clock_ahead(mut self, by: Duration) -> Self {
        self.environment.push((CLOCK_AHEAD, by.as_secs().to_string()));
        self
    }

    /// Whatever is started from now on has this variable.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Whatever is started from now on has its blobs in this bucket.
    pub fn with_bucket(mut self, bucket: &Bucket) -> Self {
        self.environment.extend(bucket.environment());
        self
    }

    /// The only model server, or the first.
    pub fn sim(&self) -> &SimServer {
        &self.sims[0]
    }

    /// What the configuration says with these settings.
    pub fn configuration(&self, settings: &Settings) -> String {
        let upstreams: Vec<String> = self.sims.iter().map(SimServer::base_url).collect();
        settings.text(&self.database.url, &self.blobs.display().to_string(), &upstreams)
    }

    /// Writes over the configuration in its place, as `>` does.
    pub fn overwrite_configuration(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    /// Writes the configuration, in one step for whoever reads it.
    pub fn configure(&self, settings: &Settings) {
        let text = self.configuration(settings);
        let fresh = self.config.with_extension("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, &self.config).unwrap();
    }

    /// Starts one more server.
    pub async fn node(&self) -> Node {
        let mut node = self.new_node();
        node.start_again().await;
        node
    }

    /// A disk below this world's SQLite file that fails when it is told to.
    pub fn disk(&self) -> Disk {
        Disk::new(self.folder.path(), &self.folder.path().join("batchin.db"))
    }

    /// Starts one more server, on this disk.
    pub async fn node_on(&self, disk: &Disk) -> Node {
        let mut node = self.new_node();
        node.extend_environment(disk.environment());
        node.start_again().await;
        node
    }

    /// One more server with a configuration of its own, not yet started.
    pub fn node_with(&self, settings: &Settings, blobs: &str) -> Node {
        let number = self.nodes.load(Ordering::Relaxed);
        let config = self.folder.path().join(format!("node-{number}.toml"));
        let blobs = self.folder.path().join(blobs).display().to_string();
        let upstreams: Vec<String> = self.sims.iter().map(SimServer::base_url).collect();
        std::fs::write(&config, settings.text(&self.database.url, &blobs, &upstreams)).unwrap();
        self.new_node().with_config(config)
    }

    /// One more server, not yet started.
    pub fn new_node(&self) -> Node {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        let data = self.folder.path().join(format!("node-{number}"));
        let log = self.folder.path().join(format!("node-{number}.log"));
        Node::new(&self.config, data, log, self.environment.clone())
    }

    /// Starts several servers.
    pub async fn nodes(&self, count: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(self.node().await);
        }
        nodes
    }

    /// A user with so many cents and a key without limits worth the name.
    pub async fn account(&self, cents: u32) -> Account {
        let account = self.beggar().await;
        self.grant(&account.email, cents).await;
        account.funded(i64::from(cents) * CENT)
    }

    /// The same without a cent.
    pub async fn beggar(&self) -> Account {
        let number = self.accounts.fetch_add(1, Ordering::Relaxed);
        let email = format!("user-{number}@example.org");
        self.command(&["user", "create", &email]).await;
        let key = self.key(&email, &["--rpm", "10000000"]).await;
        Account::new(&email, &key, 0)
    }

    /// One more key of a user.
    pub async fn key(&self, email: &str, limits: &[&str]) -> String {
        self.command(&[&["key", "create", email], limits].concat()).await.trim().to_owned()
    }

    /// Credit.
    pub async fn grant(&self, email: &str, cents: u32) {
        self.command(&["credits", "grant", email, &cents.to_string(), "--reason", "test"]).await;
    }

    /// `batchin ledger check`; fails if anything does not add up.
    pub async fn ledger(&self) -> Ledger {
        Ledger::clean(&self.command(&["ledger", "check", "--json"]).await)
    }

    /// The ledger once no server has anything leased any more.
    pub async fn settled(&self) -> Ledger {
        until("every lease is given back", async || Some(self.ledger().await).filter(|ledger| ledger.leased == 0)).await
    }

    /// Ends every connection to the database from the database's side.
    pub fn cut_connections(&self) {
        self.database.cut_connections();
    }

    /// Runs a statement on PostgreSQL behind the servers' backs.
    pub fn statement(&self, statement: &str) {
        self.database.run(statement);
    }

    /// Runs a command beside the servers and returns what it prints.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let ran = self.try_command(arguments).await;
        assert!(ran.code == 0, "batchin {}: {}\n{}{}", arguments.join(" "), ran.code, ran.out, ran.err);
        ran.out
    }

    /// The same for a command that must fail.
    pub async fn failing_command(&self, arguments: &[&str]) -> String {
        let ran = self.try_command(arguments).await;
        assert_eq!(ran.code, 1, "batchin {}\n{}{}", arguments.join(" "), ran.out, ran.err);
        ran.out
    }

    /// Runs a command that may fail.
    pub async fn try_command(&self, arguments: &[&str]) -> Ran {
        self.command_on(&self.folder.path().join("command"), arguments).await
    }

    /// The same on a data folder.
    pub async fn command_on(&self, data: &Path, arguments: &[&str]) -> Ran {
        let ran = Command::new(env!("CARGO_BIN_EXE_batchin"))
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(data)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        Ran::of(&ran)
    }
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(ran: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: ran.status.code().unwrap_or(-1), out: text(&ran.stdout), err: text(&ran.stderr) }
    }
}

/// A failed test shows what its servers had to say.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for number in 0..self.nodes.load(Ordering::Relaxed) {
            let log = std::fs::read_to_string(self.folder.path().join(format!("node-{number}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("--- node-{number}, the end of its log\n{}\n", tail.join("\n")),
            );
        }
    }
}
