//! `kill -9` at any moment loses no acknowledged charge and doubles none.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{sleep, timeout};

use crate::harness::{Backend, Load, PATIENCE, Settings, World, books_balance, chat, each_task_once, on_both, until};

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
        for _ in 0..KILLS {
            sleep(Duration::from_millis(random.random_range(LIFE_MS))).await;
            node.kill().await;
            world.ledger().await;
            node.start_again().await;
        }
        let acknowledged = load.stop().await;
        assert!(acknowledged.len() > KILLS, "the clients were served: {}", acknowledged.len());
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
