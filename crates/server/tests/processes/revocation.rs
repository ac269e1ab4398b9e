//! A key that is deleted or switched off on one server stops on all of them within one second.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::{Account, Address, Backend, Settings, World, chat, on_both, until};

/// The promise.
const WITHIN: Duration = Duration::from_secs(1);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the key is refused; how long after `since` it was last accepted.
async fn last_accepted(account: &Account, at: &Address, since: Instant) -> Duration {
    let mut last = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let reply = account.chat(at, &chat("fixed", 10)).await;
        match reply.status {
            200 => last = asked - since,
            401 => {
                assert_eq!(reply.code(), "unauthorized");
                return last;
            }
            _ => panic!("{reply:?}"),
        }
        assert!(since.elapsed() < WITHIN * 10, "the key goes on working");
        sleep(PAUSE).await;
    }
}

async fn stops_everywhere(backend: Backend, nodes: usize) {
    let world = World::new(backend, Settings::default()).await;
    let nodes = world.nodes(nodes).await;
    let (here, there) = (&nodes[0].address, &nodes.last().unwrap().address);
    let owner = world.account(1000).await;
    let made = owner.post(here, "/v1/keys", &json!({"name": "to be revoked", "rate_limit_rpm": 100_000})).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made: Value = made.json();
    let id = made["id"].as_str().unwrap();
    let account = owner.with_key(made["key"].as_str().unwrap());
    for at in [here, there] {
        assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
    }

    let switched = Instant::now();
    let off = owner.patch(here, &format!("/v1/keys/{id}"), &json!({"is_active": false})).await;
    assert_eq!(off.status, 200, "{off:?}");
    for at in [here, there] {
        assert!(last_accepted(&account, at, switched).await < WITHIN);
    }
    assert_eq!(owner.patch(here, &format!("/v1/keys/{id}"), &json!({"is_active": true})).await.status, 200);
    for at in [here, there] {
        until("it works again", async || (account.chat(at, &chat("fixed", 10)).await.status == 200).then_some(()))
            .await;
    }

    let deleted = Instant::now();
    assert_eq!(owner.delete(here, &format!("/v1/keys/{id}")).await.status, 204);
    for at in [there, here] {
        assert!(last_accepted(&account, at, deleted).await < WITHIN);
    }
    assert_eq!(owner.chat(there, &chat("fixed", 10)).await.status, 200, "the owner's other key works on");
    world.settled().await;
}

on_both! {
    async fn on_one_server(backend) {
        stops_everywhere(backend, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_two_servers() {
    stops_everywhere(Backend::Postgres, 2).await;
}
