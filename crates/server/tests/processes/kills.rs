//! `kill -9` at any moment loses no acknowledged charge and doubles none.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{sleep, timeout};

use crate::harness::{
    Backend, Load, PATIENCE, Settings, TOKEN, World, books_balance, chat, each_task_once, on_both, until, until_within,
};

/// Kills on each database.
const KILLS: usize = 30;
/// How long a server lives, in milliseconds: sometimes only its first requests, sometimes several group commits.
const LIFE_MS: std::ops::Range<u64> = 20..600;
const CLIENTS: usize = 8;
const TASKS: usize = 40;

on_both! {
    async fn what_was_acknowledged_is_charged_once(backend) {
        let world = World::new(backend, Load::settings()).await;
        let mut node = world.node().await;
        let account = world.account(100_000).await;
        let batch = account.submit(&node.address, "high", &Load::tasks(TASKS)).await;
        let load = Load::start(&account, &[&node.address], CLIENTS);
        let mut random = StdRng::seed_from_u64(7);
        for kill in 0..KILLS {
            // Every other one dies at any moment after its start; on a busy machine that is before it serves anybody.
            if kill % 2 == 1 {
                let calls = world.sim().calls();
                timeout(PATIENCE, world.sim().until_calls(calls + 1)).await.expect("clients are served");
            }
            sleep(Duration::from_millis(random.random_range(LIFE_MS))).await;
            node.kill().await;
            world.ledger().await;
            node.start_again().await;
        }
        let acknowledged = load.stop().await;
        assert!(acknowledged.len() >= KILLS / 3, "the clients were served: {}", acknowledged.len());
        each_task_once(&account, &node.address, &batch, TASKS).await;
        books_balance(&world, &account, &node.address, &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_server_had_goes_to_the_others() {
    let settings = Settings { lease_seconds: 1, ..Load::settings() };
    let world = World::new(Backend::Postgres, settings.model("slow", "sim:tokens=100,first_ms=60000")).await;
    let (mut dying, other) = (world.node().await, world.node().await);
    let account = world.account(100_000).await;
    let batch = account.submit(&dying.address, "high", &Load::tasks(TASKS)).await;
    let load = Load::start(&account, &[&dying.address, &other.address], CLIENTS);
    timeout(PATIENCE, world.sim().until_calls(50)).await.expect("clients are served");
    dying.kill().await;
    each_task_once(&account, &other.address, &batch, TASKS).await;
    let acknowledged = load.stop().await;
    books_balance(&world, &account, &other.address, &acknowledged).await;

    // All of what somebody has may be held by a server when it dies; it is theirs again soon.
    dying.start_again().await;
    let poor = world.account(1).await;
    let (asking, at) = (poor.clone(), dying.address.clone());
    let calls = world.sim().calls();
    let held =
        tokio::task::JoinSet::from_iter([async move { asking.try_chat(&at, &chat("slow", 100)).await.is_err() }]);
    timeout(PATIENCE, world.sim().until_calls(calls + 1)).await.expect("the request runs");
    dying.kill().await;
    assert_eq!(held.join_all().await, [true]);
    let answered = async || (poor.chat(&other.address, &chat("fixed", 100)).await.status == 200).then_some(());
    until("the money can be spent elsewhere", answered).await;
    world.settled().await;
}

/// Tasks of the batch that is killed again and again. Each takes long enough that the last kill comes before the batch's
/// end, also where a server starts slowly.
const LONG_BATCH: usize = 5_000;
const BATCH_KILLS: usize = 10;
/// Tasks that run at once.
const AT_ONCE: u32 = 64;
/// Tasks between their claim's start and their charge at once, four of them with an answer for each that runs: what a death
/// repeats at most.
const IN_FLIGHT: u32 = 5 * AT_ONCE;
/// How soon after a restart work must go on: in less than a second, and this where others build beside it.
const GOES_ON: Duration = Duration::from_secs(6);

on_both! {
    async fn a_long_batch_repeats_only_what_was_in_flight(backend) {
        let settings = Settings { lease_seconds: 1, tasks_at_once: AT_ONCE, ..Settings::default() };
        let world = World::new(backend, settings.model("task", "sim:tokens=2,first_ms=160")).await;
        let mut node = world.node().await;
        let account = world.account(100_000).await;
        let line = |index: usize| {
            let body = chat("task", 2);
            let line = serde_json::json!({"custom_id": format!("task-{index}"), "method": "POST",
                "url": "/v1/chat/completions", "body": body});
            format!("{line}\n")
        };
        let file = account.upload(&node.address, (0..LONG_BATCH).map(line).collect()).await;
        let order = serde_json::json!({"input_file_id": file, "completion_window": "24h", "priority": "high"});
        let made = account.post(&node.address, "/openai/v1/batches", &order).await;
        let batch = made.json()["id"].as_str().unwrap().to_owned();
        let mut random = StdRng::seed_from_u64(11);
        let mut kills = 0;
        let completed = async |account: &crate::harness::Account, at: &crate::harness::Address| {
            account.batch(at, &batch).await["completed_tasks"].as_u64().unwrap()
        };
        for _ in 0..BATCH_KILLS {
            sleep(Duration::from_millis(random.random_range(50..300))).await;
            if completed(&account, &node.address).await == LONG_BATCH as u64 {
                break;
            }
            node.kill().await;
            kills += 1;
            world.ledger().await;
            node.start_again().await;
            let before = completed(&account, &node.address).await;
            until_within(GOES_ON, "work goes on", async || {
                (completed(&account, &node.address).await > before).then_some(())
            })
            .await;
        }
        assert_eq!(kills, BATCH_KILLS, "the batch outlived the kills");
        let ended = async || (account.batch(&node.address, &batch).await["status"] == "completed").then_some(());
        until_within(Duration::from_secs(120), "the batch ends", ended).await;
        let done = account.batch(&node.address, &batch).await;
        assert_eq!(done["completed_tasks"], LONG_BATCH, "{done}");
        let calls = world.sim().calls();
        let most = LONG_BATCH as u64 + kills as u64 * u64::from(IN_FLIGHT);
        assert!(calls <= most, "only what was in flight ran again: {calls} calls");
        let results = account.results(&node.address, &batch).await;
        let named: std::collections::HashSet<_> = results.iter().map(|line| line["custom_id"].to_string()).collect();
        assert_eq!((results.len(), named.len()), (LONG_BATCH, LONG_BATCH), "each task has one result");
        assert_eq!(100_000 * crate::harness::CENT - account.balance(&node.address).await, LONG_BATCH as i64 * 2 * TOKEN);
        world.settled().await;
    }
}
