//! Blobs in a bucket, on two S3 servers that are not ours: files, batches that become few objects, and what goes wrong on
//! the way to them.

use std::{collections::HashSet, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::{
    Account, Address, Backend, Bucket, Maker, PATIENCE, Settings, TOKEN, Trouble, World, chat, each_task_once, until,
    until_within,
};

/// Longer than one part of an upload.
const LONG_FILE: usize = 12_000_000;
/// A batch of some thousand tasks in a debug build, on a machine that is busy with other tests.
const BATCH_PATIENCE: Duration = Duration::from_secs(120);

/// Runs each body on both servers, each time with another database.
macro_rules! on_each {
    ($(async fn $name:ident($bucket:ident, $backend:ident) $body:block)+) => {$(
        mod $name {
            use super::*;
            async fn body($bucket: Bucket, $backend: Backend) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn moto() {
                body(Bucket::new(Maker::Moto).await, Backend::Sqlite).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s3s_fs() {
                body(Bucket::new(Maker::S3s).await, Backend::Postgres).await;
            }
        }
    )+};
}

fn lines(model: &str, count: usize) -> String {
    let line = |index: usize| {
        let line = json!({"custom_id": format!("task-{index}"), "method": "POST", "url": "/v1/chat/completions",
            "body": chat(model, 10)});
        format!("{line}\n")
    };
    (0..count).map(line).collect()
}

/// Makes a batch of a file; its id.
async fn submit(account: &Account, at: &Address, model: &str, count: usize) -> String {
    let file = account.upload(at, lines(model, count)).await;
    let order = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "priority": "high"});
    let batch = account.post(at, "/openai/v1/batches", &order).await;
    assert_eq!(batch.status, 200, "{batch:?}");
    batch.json()["id"].as_str().unwrap().to_owned()
}

/// Waits for the batch's end, and looks at both ways in which its results are read.
async fn ends_right(account: &Account, at: &Address, id: &str, count: usize) -> Value {
    // Its tasks are read all the while, also when it moves their results.
    let ended = async || (account.batch(at, &plain(id)).await["status"] == "completed").then_some(());
    until_within(BATCH_PATIENCE, "the batch ends", ended).await;
    let batch = account.get(at, &format!("/openai/v1/batches/{id}")).await.json();
    assert_eq!(batch["request_counts"], json!({"total": count, "completed": count, "failed": 0}), "{batch}");
    each_task_once(account, at, &plain(id), count).await;
    let output = batch["output_file_id"].as_str().unwrap();
    let content = account.get(at, &format!("/openai/v1/files/{output}/content")).await;
    assert_eq!(content.status, 200);
    let content = String::from_utf8(content.body.to_vec()).unwrap();
    let mut named = HashSet::new();
    for line in content.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["response"]["body"]["usage"]["completion_tokens"], 10, "{line}");
        named.insert(line["custom_id"].as_str().unwrap().to_owned());
    }
    assert_eq!((content.lines().count(), named.len()), (count, count), "each task has one line");
    batch
}

/// What OpenAI's name of a batch is everywhere else.
fn plain(id: &str) -> String {
    Uuid::parse_str(id.trim_start_matches("batch_")).unwrap().to_string()
}

/// A file that is long, and whose every part differs.
fn long_text() -> String {
    (0_usize..).map(|number| format!("{number:09}\n")).take(LONG_FILE / 10).collect()
}

async fn content(account: &Account, at: &Address, file: &str) -> String {
    let content = account.get(at, &format!("/openai/v1/files/{file}/content")).await;
    assert_eq!(content.status, 200, "{content:?}");
    String::from_utf8(content.body.to_vec()).unwrap()
}

on_each! {
    async fn files_are_objects(bucket, backend) {
        let world = World::new(backend, Settings::default()).await.with_bucket(&bucket);
        let node = world.node().await;
        let (account, at) = (world.account(1000).await, &node.address);
        let text = long_text();
        let long = account.upload(at, text.clone()).await;
        let short = account.upload(at, "{}\n".to_owned()).await;
        assert_eq!(bucket.objects("files").await.len(), 2);
        assert!(content(&account, at, &long).await == text, "as it was written");
        assert_eq!(content(&account, at, &short).await, "{}\n");
        for file in [&long, &short] {
            assert_eq!(account.delete(at, &format!("/openai/v1/files/{file}")).await.status, 200);
        }
        assert_eq!(bucket.objects("files").await, Vec::<String>::new());
    }

    async fn a_batch_becomes_few_objects(bucket, backend) {
        const TASKS: usize = 3_000;
        let world = World::new(backend, Settings::default()).await.with_bucket(&bucket);
        let node = world.node().await;
        let (account, at) = (world.account(100_000).await, &node.address);
        let id = submit(&account, at, "fixed", TASKS).await;
        ends_right(&account, at, &id, TASKS).await;
        let written = bucket.calls(&Method::PUT, "results/");
        assert!(written <= TASKS / 20, "{written} objects");
        assert_eq!(bucket.objects("results").await.len(), 1, "they were moved together");
        // A page of a hundred results is a look or two, where what lies between them is long, and not one for each.
        let before = bucket.calls(&Method::GET, "results/");
        account.results(at, &plain(&id)).await;
        let looks = bucket.calls(&Method::GET, "results/") - before;
        assert!(looks <= TASKS / 50, "{looks} looks");
        assert_eq!(account.funded - account.balance(at).await, 10 * TOKEN * i64::try_from(TASKS).unwrap());
        world.settled().await;
    }

    async fn whatever_goes_wrong_on_the_way_nothing_is_lost_or_doubled(bucket, backend) {
        const TASKS: usize = 200;
        let world = World::new(backend, Settings::default()).await.with_bucket(&bucket);
        let node = world.node().await;
        let (account, at) = (world.account(100_000).await, &node.address);
        let text = long_text();
        for trouble in [
            Trouble::Slow(Duration::from_millis(150)),
            Trouble::Refused { one_in: 3, status: 503 },
            Trouble::Refused { one_in: 3, status: 500 },
            Trouble::Cut { one_in: 3 },
            Trouble::Unanswered { one_in: 3 },
        ] {
            let before = bucket.troubled();
            bucket.trouble(Some(trouble));
            let id = submit(&account, at, "fixed", TASKS).await;
            ends_right(&account, at, &id, TASKS).await;
            let file = account.upload(at, text.clone()).await;
            assert!(content(&account, at, &file).await == text, "{trouble:?}: as it was written");
            assert_eq!(account.delete(at, &format!("/openai/v1/files/{file}")).await.status, 200);
            bucket.trouble(None);
            assert!(bucket.troubled() > before, "{trouble:?}: nothing went wrong");
        }
        world.settled().await;
    }

    async fn nothing_is_charged_before_it_is_stored(bucket, backend) {
        const TASKS: usize = 40;
        let settings = Settings::default().model("slow", "sim:tokens=10,first_ms=1500");
        let world = World::new(backend, settings).await.with_bucket(&bucket);
        let node = world.node().await;
        let (account, at) = (world.account(1000).await, &node.address);
        let id = submit(&account, at, "slow", TASKS).await;
        timeout(PATIENCE, world.sim().until_calls(1)).await.expect("tasks run");
        bucket.trouble(Some(Trouble::Refused { one_in: 1, status: 503 }));
        until("results are refused", async || (bucket.calls(&Method::PUT, "results/") >= 3).then_some(())).await;
        assert_eq!((account.usage(at).await.len(), account.balance(at).await), (0, account.funded));
        bucket.trouble(None);
        ends_right(&account, at, &id, TASKS).await;
        assert_eq!(world.sim().calls(), TASKS as u64, "no answer was bought twice");
        world.settled().await;
    }

    async fn who_stops_stores_what_was_answered(bucket, backend) {
        const TASKS: usize = 40;
        let world = World::new(backend, Settings::default()).await.with_bucket(&bucket);
        let mut node = world.node().await;
        let (account, at) = (world.account(1000).await, node.address.clone());
        let id = submit(&account, &at, "fixed", TASKS).await;
        timeout(PATIENCE, world.sim().until_calls(1)).await.expect("tasks run");
        bucket.trouble(Some(Trouble::Slow(Duration::from_millis(700))));
        timeout(PATIENCE, world.sim().until_calls(TASKS as u64)).await.expect("tasks run");
        until("results are on their way", async || (bucket.calls(&Method::PUT, "results/") > 0).then_some(())).await;
        assert!(node.terminate().await.success());
        bucket.trouble(None);
        node.start_again().await;
        ends_right(&account, &at, &id, TASKS).await;
        assert_eq!(world.sim().calls(), TASKS as u64, "no answer was bought twice");
        world.settled().await;
    }
}
