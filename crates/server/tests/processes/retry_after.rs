//! The pause that clients are asked for, as the official packages take it.

use std::path::{Path, PathBuf};

use batchin_sim::{Behaviour, Refusal};
use tokio::process::Command;

use crate::harness::{Backend, Settings, World};

fn prepared(name: &str) -> PathBuf {
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set: run with `make test`"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_packages_wait_as_long_as_they_are_told() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let busy = Refusal::vllm(429, "slow down").retry_after("3600");
    world.sim().script_all(Behaviour::Refuse(busy.clone()));
    world.sim().script("sim:tokens=10", Behaviour::Refuse(busy));
    let (node, account) = (world.node().await, world.account(100).await);
    let python = prepared("BATCHIN_TEST_PYTHON");
    let packages = [(python.as_path(), "retry_after_python.py"), (Path::new("node"), "retry_after_node.mjs")];
    for (program, script) in packages {
        let ran = Command::new(program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk").join(script))
            .env("SDK_URL", node.address.url())
            .env("SDK_KEY", &account.key)
            .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
            .kill_on_drop(true)
            .output();
        let ran = ran.await.unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    world.settled().await;
}
