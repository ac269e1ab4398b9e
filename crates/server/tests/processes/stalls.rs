//! A server that stood still for longer than its lease sends nothing and settles nothing of what was taken back.

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::{Backend, CENT, PATIENCE, Settings, TOKEN, World, chat, each_task_once, on_both, text_of, until};

fn one_task(model: &str) -> [serde_json::Value; 1] {
    [serde_json::json!({"custom_id": "task", "model": model, "request_body": chat(model, 10)})]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stalled_server_had_is_the_others_and_its_late_usage_is_ours() {
    let settings = Settings { lease_seconds: 1, ..Settings::default() };
    let settings = settings.model("flowing", "sim:tokens=100,gap_ms=100").model("slow", "sim:tokens=100,first_ms=5000");
    let world = World::new(Backend::Postgres, settings).await;
    let (stalled, alive) = (world.node().await, world.node().await);
    let account = world.account(2).await;

    // Both cents are held by the server that is about to stall.
    let mut events = account.stream(&stalled.address, chat("flowing", 100)).await;
    let asking = account.clone();
    let at = stalled.address.clone();
    let whole = tokio::task::JoinSet::from_iter([async move { asking.try_chat(&at, &chat("slow", 100)).await }]);
    world.sim().until_calls(2).await;
    let mut before = 0;
    while before < 3 {
        let data = timeout(PATIENCE, events.next()).await.unwrap().unwrap().expect("the stream goes on");
        before += usize::from(text_of(&data).is_some());
    }
    assert_eq!(account.chat(&alive.address, &chat("fixed", 10)).await.status, 402, "the money is held");
    stalled.freeze();
    let ledger = world.settled().await;
    assert_eq!((ledger.usage_rows, ledger.late), (0, 0));

    // What it had is the customer's again, and may all be spent elsewhere.
    for _ in 0..20 {
        assert_eq!(account.chat(&alive.address, &chat("fixed", 10)).await.status, 200);
    }
    assert_eq!(account.balance(&alive.address).await, 0);

    // What had left the server before it stalled may still arrive; then there is silence, because it stands still.
    while let Ok(event) = timeout(Duration::from_millis(300), events.next()).await {
        assert!(event.unwrap().is_some_and(|data| text_of(&data).is_some()), "the stream goes on");
    }
    stalled.thaw();
    let after = timeout(PATIENCE, events.all()).await.unwrap().unwrap_or_default();
    assert!(after.iter().all(|data| text_of(data).is_none()), "it sends no token after its lease: {after:?}");
    assert!(!after.iter().any(|data| data == "[DONE]"), "and does not call that an answer: {after:?}");
    assert!(after.iter().any(|data| data.contains("\"error\"")), "it says that it failed: {after:?}");
    let whole = whole.join_all().await.remove(0);
    assert!(whole.as_ref().is_ok_and(|reply| reply.status == 503), "{whole:?}");

    let ledger = until("the late usage is booked", async || Some(world.ledger().await).filter(|l| l.late > 0)).await;
    assert!(ledger.late <= 2 * CENT, "{ledger:?}");
    assert_eq!(ledger.usage_rows, 20);
    assert_eq!(account.balance(&alive.address).await, 0);
    assert_eq!(account.summary(&alive.address).await, (20, 2 * CENT));

    // The server that stalled serves again.
    world.grant(&account.email, 1).await;
    let answered = async || (account.chat(&stalled.address, &chat("fixed", 10)).await.status == 200).then_some(());
    until("the stalled server serves again", answered).await;
    assert_eq!(account.balance(&stalled.address).await, CENT - 10 * TOKEN);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_goes_on_after_it_stood_still() {
    let settings = Settings { lease_seconds: 1, ..Settings::default() }.model("flowing", "sim:tokens=40,gap_ms=50");
    let world = World::new(Backend::Sqlite, settings).await;
    let node = world.node().await;
    let account = world.account(100).await;
    let mut events = account.stream(&node.address, chat("flowing", 40)).await;
    let mut tokens = 0;
    while tokens < 3 {
        let data = events.next().await.unwrap().expect("the stream goes on");
        tokens += i64::from(text_of(&data).is_some());
    }
    node.freeze();
    // Longer than the lease and what the store waits beyond it; nothing but time can be waited for here.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    node.thaw();
    let rest = events.all().await.unwrap();
    tokens += i64::try_from(rest.iter().filter(|data| text_of(data).is_some()).count()).unwrap();
    let answered = async || (account.chat(&node.address, &chat("fixed", 10)).await.status == 200).then_some(());
    until("the server serves again", answered).await;
    let ledger = world.settled().await;
    // Nobody took the lease back, so that what was delivered is charged, even if the stream was cut.
    let charged = account.funded - account.balance(&node.address).await;
    assert_eq!((charged, ledger.late), ((tokens + 10) * TOKEN, 0), "{rest:?}");
    assert!(rest.iter().any(|data| data == "[DONE]" || data.contains("\"error\"")), "no silent end: {rest:?}");
}

/// The worker that stood still had a task whose result it delivers when another one has run it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_late_result_of_a_stalled_worker_is_refused() {
    let settings = Settings { lease_seconds: 1, ..Settings::default() }.model("slow", "sim:tokens=10,first_ms=1500");
    let world = World::new(Backend::Postgres, settings).await;
    let stalled = world.node().await;
    let account = world.account(100).await;
    let batch = account.submit(&stalled.address, "high", &one_task("slow")).await;
    timeout(PATIENCE, world.sim().until_calls(1)).await.expect("the task runs");
    stalled.freeze();
    let alive = world.node().await;
    each_task_once(&account, &alive.address, &batch, 1).await;
    assert_eq!(world.sim().calls(), 2, "it ran once on each");
    let charged = account.funded - account.balance(&alive.address).await;
    stalled.thaw();
    let answered = async || (account.chat(&stalled.address, &chat("fixed", 10)).await.status == 200).then_some(());
    until("the stalled server serves again", answered).await;
    let ledger = world.settled().await;
    assert_eq!((charged, ledger.usage_rows), (10 * TOKEN, 2), "the task's one charge, and one request after it");
    each_task_once(&account, &alive.address, &batch, 1).await;
}

on_both! {
    async fn a_task_that_outlives_its_lease_on_a_live_worker_runs_once(backend) {
        let settings = Settings { lease_seconds: 1, ..Settings::default() }.model("slow", "sim:tokens=10,first_ms=4000");
        let world = World::new(backend, settings).await;
        let node = world.node().await;
        let account = world.account(100).await;
        let batch = account.submit(&node.address, "high", &one_task("slow")).await;
        each_task_once(&account, &node.address, &batch, 1).await;
        assert_eq!(world.sim().calls(), 1);
        assert_eq!(account.funded - account.balance(&node.address).await, 10 * TOKEN);
        world.settled().await;
    }
}
