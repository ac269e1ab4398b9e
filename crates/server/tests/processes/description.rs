//! Holds: the description of the API against the server: calls that are generated from it are accepted or refused as it
//! says.

use std::{path::PathBuf, process::Stdio, time::Duration};

use batchin_testkit::Backend;
use tokio::{process::Command, time::timeout};

use crate::harness::{Settings, World};

/// The whole run, which takes a minute and a half on two undisturbed cores.
const PATIENCE: Duration = Duration::from_secs(450);
const INTERNAL_TOKEN: &str = "the site's own";
/// More than what is generated holds at once.
const CENTS: u32 = 4_000_000_000;

#[tokio::test]
async fn what_is_generated_from_the_description_is_answered_as_it_says() {
    let python = std::env::var_os("BATCHIN_TEST_PYTHON").map(PathBuf::from);
    let python = python.expect("BATCHIN_TEST_PYTHON is not set: run this with `make test`");
    let settings = Settings::default().embedding_model("embed", "sim:tokens=0").ranking_model("rank", "sim:tokens=0");
    let world = World::new(Backend::Sqlite, settings).await.with("BATCHIN_USERS__INTERNAL_TOKEN", INTERNAL_TOKEN);
    let node = world.node().await;
    let account = world.account(CENTS).await;
    let keys = account.get(&node.address, "/v1/keys").await.json();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk/description_python.py");
    let run = Command::new(python)
        .arg(script)
        .env("SDK_URL", node.address.url())
        .env("SDK_KEY", &account.key)
        .env("SDK_KEY_ID", keys[0]["id"].as_str().unwrap())
        .env("SDK_INTERNAL_TOKEN", INTERNAL_TOKEN)
        .env("SDK_CHAT_MODEL", "fixed")
        .env("SDK_EMBED_MODEL", "embed")
        .env("SDK_RANK_MODEL", "rank")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = timeout(PATIENCE, run).await.expect("it takes too long").unwrap();
    let [out, err] = [&run.stdout, &run.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(run.status.success(), "{out}{err}");
}
