//! A server that is told to stop finishes what it began, hands back what it has, and forgets nothing.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Account, Address, PATIENCE, Settings, TOKEN, World, chat, on_both, text_of, until};

const ANSWER: i64 = 10 * TOKEN;
const CLIENTS: usize = 12;
const TASKS: usize = 30;

/// Asks until the server does not take requests any more. Every answer that begins must come whole.
async fn ask(account: Account, at: Address, first: usize) -> u64 {
    let mut answered = 0;
    for turn in first.. {
        if turn.is_multiple_of(2) {
            // A refused connection, or one that an idle server closed, carried no request.
            let Ok(reply) = account.try_chat(&at, &chat("brief", 10)).await else { break };
            if reply.status != 200 {
                assert_eq!(reply.status, 503, "{reply:?}");
                break;
            }
        } else {
            let Ok(events) = account.try_stream(&at, chat("flowing", 10)).await else { break };
            if events.status() != 200 {
                assert_eq!(events.status(), 503);
                break;
            }
            let events = events.all().await.expect("a stream under way is not cut");
            assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
        }
        answered += 1;
    }
    answered
}

on_both! {
    async fn what_is_under_way_is_finished_and_the_rest_handed_back(backend) {
        let settings = Settings::default()
            .model("brief", "sim:tokens=10,first_ms=50")
            .model("flowing", "sim:tokens=10,gap_ms=30")
            .model_on(1, "task", "sim:tokens=10,first_ms=700");
        let world = World::with_sims(backend, 2, settings).await;
        let mut node = world.node().await;
        let account = world.account(100_000).await;
        let tasks: Vec<Value> = (0..TASKS)
            .map(|index| json!({"custom_id": format!("task-{index}"), "model": "task", "request_body": chat("task", 10)}))
            .collect();
        let batch = account.submit(&node.address, "low", &tasks).await;
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(ask(account.clone(), node.address.clone(), client));
        }
        let (interactive, of_batch) = (&world.sims[0], &world.sims[1]);
        timeout(PATIENCE, interactive.until_calls(60)).await.expect("clients are served");
        timeout(PATIENCE, of_batch.until_calls(3)).await.expect("tasks run");
        assert!(node.terminate().await.success(), "it ends in good order");
        let answered: u64 = clients.join_all().await.into_iter().sum();
        assert_eq!(interactive.calls(), answered, "whatever reached the model server was answered");
        assert_eq!(interactive.aborted(), 0);
        let ledger = world.ledger().await;
        assert_eq!((ledger.leased, ledger.late), (0, 0), "it gave everything back");

        node.start_again().await;
        let at = &node.address;
        until("the batch ends", async || (account.batch(at, &batch).await["status"] == "completed").then_some(())).await;
        let results = account.results(at, &batch).await;
        let named: HashSet<&str> = results.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
        assert_eq!((results.len(), named.len()), (TASKS, TASKS));
        let rows = account.usage(at).await;
        let of_tasks = rows.iter().filter(|row| row["batch_id"] == batch.as_str()).count();
        assert_eq!((rows.len() as u64, of_tasks), (answered + TASKS as u64, TASKS));
        // Tasks of priority low cost half.
        let expected = i64::try_from(answered).unwrap() * ANSWER + TASKS as i64 * ANSWER / 2;
        assert_eq!(account.funded - account.balance(at).await, expected);
        world.settled().await;
    }

    async fn a_server_that_drains_says_so_and_still_serves(backend) {
        let settings = Settings { drain_seconds: 6, ..Settings::default() };
        let world = World::new(backend, settings).await;
        let mut node = world.node().await;
        let account = world.account(100).await;
        let ready = async |at: &Address| account.get(at, "/readyz").await;
        assert_eq!(ready(&node.address).await.status, 200);
        node.stop();
        let told = until("it says that it is draining", async || {
            let said = ready(&node.address).await;
            (said.status == 503).then_some(said)
        });
        let said: Value = serde_json::from_slice(&told.await.body).unwrap();
        assert_eq!(said["status"], "draining");
        assert_eq!(account.chat(&node.address, &chat("fixed", 10)).await.status, 200);
        assert!(node.wait_for_death().await.expect("it ends").success());
        assert!(account.try_chat(&node.address, &chat("fixed", 10)).await.is_err(), "the port is closed");
        assert_eq!(world.settled().await.usage_rows, 1);
    }

    async fn a_request_that_outlasts_the_grace_is_cut_off_and_not_charged(backend) {
        let settings = Settings { grace_seconds: 1, ..Settings::default() }.model("endless", "sim:hang");
        let world = World::new(backend, settings).await;
        let mut node = world.node().await;
        let account = world.account(100).await;
        let (asking, at) = (account.clone(), node.address.clone());
        let cut = JoinSet::from_iter([async move { asking.try_chat(&at, &chat("endless", 10)).await.is_err() }]);
        world.sim().until_calls(1).await;
        assert!(timeout(Duration::from_secs(15), node.terminate()).await.expect("it ends soon").success());
        assert_eq!(cut.join_all().await, [true]);
        assert_eq!(world.ledger().await.leased, 0);
        node.start_again().await;
        assert_eq!(account.balance(&node.address).await, account.funded);
    }
    async fn a_stream_that_outlasts_the_grace_is_charged_for_what_was_delivered(backend) {
        let settings = Settings { grace_seconds: 1, ..Settings::default() };
        let world = World::new(backend, settings.model("endless", "sim:tokens=2000,gap_ms=20")).await;
        let mut node = world.node().await;
        let account = world.account(100).await;
        let mut events = account.stream(&node.address, chat("endless", 2_000)).await;
        let stopping = async { assert!(node.terminate().await.success()) };
        let reading = async {
            let mut tokens = 0;
            while let Ok(Some(data)) = events.next().await {
                tokens += i64::from(text_of(&data).is_some());
            }
            tokens
        };
        let ((), tokens) = tokio::join!(stopping, reading);
        assert!((10..500).contains(&tokens), "{tokens} tokens in a second");
        node.start_again().await;
        let charged = account.funded - account.balance(&node.address).await;
        // What was counted and did not reach the client any more is at most what one connection holds.
        assert!((tokens..tokens + 100).contains(&(charged / TOKEN)), "{charged} for {tokens} tokens");
        world.settled().await;
    }
}
