//! The disk below the database fills up, forgets or fails, and works again: what was acknowledged is there, also after a
//! restart, and the server goes on by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Account, Address, Backend, DiskFault, Settings, World, chat, on_both, until, until_within};

/// How long a server may take to go on once its database does: a lease, and what is tried again within it.
const SOON: Duration = Duration::from_secs(10);
/// Requests while the database is away.
const REFUSED: usize = 12;
/// Writes that are acknowledged after it is back.
const KEYS: usize = 8;

/// What `/readyz` says.
async fn readiness(account: &Account, at: &Address) -> (u16, Value) {
    let ready = account.get(at, "/readyz").await;
    (ready.status, ready.json())
}

/// Nothing is acknowledged while it cannot be stored; requests are refused as such.
async fn refuses(account: &Account, at: &Address) {
    let asked = (0..REFUSED).map(|number| async move {
        let key = account.post(at, "/v1/keys", &json!({"name": format!("refused-{number}")})).await;
        assert!(key.status >= 500, "{key:?}");
        account.chat(at, &chat("fixed", 10)).await
    });
    // Of the chats those are answered whose charges were stored before.
    futures::future::join_all(asked).await;
}

/// From its first answer on, everything that it acknowledges is there.
async fn goes_on(account: &Account, at: &Address) -> Vec<Value> {
    let back = async || (account.chat(at, &chat("fixed", 10)).await.status == 200).then_some(());
    until_within(SOON, "the server goes on by itself", back).await;
    let ready = async || (readiness(account, at).await.0 == 200).then_some(());
    until_within(SOON, "the server says that it is ready", ready).await;
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let made = account.post(at, "/v1/keys", &json!({"name": format!("after-{number}")})).await;
        assert_eq!(made.status, 200, "{made:?}");
        keys.push(made.json()["id"].clone());
        assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
    }
    keys
}

async fn all_there(account: &Account, at: &Address, keys: &[Value]) {
    let listed = account.get(at, "/v1/keys").await;
    assert_eq!(listed.status, 200, "{listed:?}");
    let listed = listed.json();
    let listed = listed.as_array().expect("a list");
    let lost: Vec<_> = keys.iter().filter(|id| !listed.iter().any(|key| key["id"] == **id)).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
}

async fn comes_back(fault: DiskFault, says: &str, logs: &[&str]) {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let disk = world.disk();
    let mut node = world.node_on(&disk).await;
    let account = world.account(1_000).await;
    assert_eq!(account.chat(&node.address, &chat("fixed", 10)).await.status, 200);
    disk.fail(fault);
    // What another process writes is in no cache of the server's.
    world.key(&account.email, &[]).await;
    let told = async || {
        let (status, ready) = readiness(&account, &node.address).await;
        (status == 503 && ready["database_fault"] == says).then_some(())
    };
    until("the server says that its database takes no writes, and why", told).await;
    refuses(&account, &node.address).await;
    disk.mend(fault);
    let keys = goes_on(&account, &node.address).await;
    let log = node.log();
    for said in logs {
        assert!(log.contains(said), "`{said}` is not in the log");
    }
    node.kill().await;
    node.start_again().await;
    all_there(&account, &node.address, &keys).await;
    node.terminate().await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing() {
    comes_back(DiskFault::Full, "its disk is full", &["code 13", "database or disk is full"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_forgets_loses_nothing() {
    comes_back(DiskFault::Fsync, "its disk fails", &["disk I/O error"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_read_loses_nothing() {
    // What lies in a cache is read from there: a connection that is new reads the file.
    comes_back(DiskFault::Read, "its disk fails", &["disk I/O error"]).await;
}

/// PostgreSQL's own disk, as its server reports it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_postgresql_loses_nothing() {
    const TABLES: [&str; 5] = ["node", "transfer", "api_key", "lease", "purse"];
    let world = World::new(Backend::Postgres, Settings::default()).await;
    let mut node = world.node().await;
    let account = world.account(1_000).await;
    assert_eq!(account.chat(&node.address, &chat("fixed", 10)).await.status, 200);
    world.statement(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not extend file'; END $$",
    );
    for table in TABLES {
        world.statement(&format!(
            "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION full_disk()"
        ));
    }
    let told = async || {
        let (status, ready) = readiness(&account, &node.address).await;
        (status == 503 && ready["database_fault"] == "its disk is full").then_some(())
    };
    until("the server says that its database takes no writes, and why", told).await;
    refuses(&account, &node.address).await;
    world.statement("DROP FUNCTION full_disk CASCADE");
    let keys = goes_on(&account, &node.address).await;
    assert!(node.log().contains("SQLSTATE 53100") && node.log().contains("could not extend file"));
    node.kill().await;
    node.start_again().await;
    all_there(&account, &node.address, &keys).await;
    node.terminate().await;
    world.settled().await;
}

on_both! {
    // A second server on one SQLite file would believe itself alone; on PostgreSQL there may be many.
    async fn a_database_that_one_server_can_have_is_not_shared(backend) {
        let world = World::new(backend, Settings::default()).await;
        let mut first = world.node().await;
        let mut second = world.new_node();
        let starts = second.starts().await;
        assert_eq!(starts, backend == Backend::Postgres, "{}", second.log());
        if backend == Backend::Sqlite {
            assert!(second.log().contains("another batchin serves from"), "{}", second.log());
            // Whoever was killed holds nothing.
            first.kill().await;
            assert!(second.starts().await, "{}", second.log());
        }
    }
}
