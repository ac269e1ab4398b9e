//! A batch whose window passes, as the official packages see it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use crate::harness::{Account, Backend, Node, Settings, World, until};

/// Past the shortest window, which is an hour.
const AHEAD: Duration = Duration::from_secs(2 * 3_600);

fn prepared(name: &str) -> PathBuf {
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set: run with `make test`"))
}

/// Runs a script of a package; returns what it prints.
async fn run(program: &Path, script: &str, (account, node): (&Account, &Node), arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk").join(script);
    let ran = Command::new(program)
        .arg(script)
        .args(arguments)
        .env("SDK_URL", node.address.url())
        .env("SDK_KEY", &account.key)
        .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
        .kill_on_drop(true)
        .output();
    let ran = ran.await.unwrap();
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_packages_see_a_batch_expire() {
    let world = World::new(Backend::Sqlite, Settings::default().model("endless", "sim:hang")).await;
    let mut node = world.node().await;
    let account = world.account(100).await;
    let python = prepared("BATCHIN_TEST_PYTHON");
    let packages = [(python.as_path(), "expiry_python.py"), (Path::new("node"), "expiry_node.mjs")];
    let mut made = Vec::new();
    for (program, script) in packages {
        let id = run(program, script, (&account, &node), &["create"]).await;
        let one_done = async || (account.batch(&node.address, &id).await["completed_tasks"] == 1).then_some(());
        until("the quick request is answered", one_done).await;
        made.push(id);
    }
    node.kill().await;
    node.set_clock_ahead(AHEAD);
    node.start_again().await;
    for ((program, script), id) in packages.into_iter().zip(&made) {
        run(program, script, (&account, &node), &["check", id]).await;
    }
    assert_eq!(account.usage(&node.address).await.len(), 2, "what expired is not charged");
    world.settled().await;
}
