//! A key that is deleted or switched off on one server stops on all of them within one second, and so does everything of
//! a user who is disabled.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::{Account, Address, Backend, CENT, Settings, World, chat, on_both, until};

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

/// Asks until the session is refused; how long after `since` it was last accepted.
async fn last_seen(session: &Account, at: &Address, since: Instant) -> Duration {
    let mut last = Duration::ZERO;
    loop {
        let asked = Instant::now();
        match session.get(at, "/v1/users/me").await.status {
            200 => last = asked - since,
            401 => return last,
            status => panic!("{status}"),
        }
        assert!(since.elapsed() < WITHIN * 10, "the session goes on working");
        sleep(PAUSE).await;
    }
}

async fn a_disabled_user_is_kept_out(backend: Backend, nodes: usize) {
    let world = World::new(backend, Settings::default()).await;
    let nodes = world.nodes(nodes).await;
    let other = world.account(1000).await;
    let (here, there) = (&nodes[0].address, &nodes.last().unwrap().address);
    let (email, password) = ("ann@example.org", "correct horse battery staple");
    let made = other.post(here, "/v1/users", &json!({"email": email, "name": "Ann", "password": password})).await;
    assert_eq!(made.status, 200, "{made:?}");
    world.grant(email, 1000).await;
    let account = Account::new(email, &world.key(email, &["--rpm", "100000"]).await, 1000 * CENT);
    let login = json!({"email": email, "password": password});
    let entered = account.post(here, "/v1/users/login", &login).await;
    assert_eq!(entered.status, 200, "{entered:?}");
    let session = account.with_key(entered.json()["access_token"].as_str().unwrap());
    for at in [here, there] {
        assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
        assert_eq!(session.get(at, "/v1/users/me").await.status, 200);
    }

    // The command takes effect with its commit, so that counting begins before it is started.
    let disabled = Instant::now();
    let said = world.command(&["user", "disable", &account.email]).await;
    assert_eq!(said.trim(), format!("{} is disabled", account.email));
    let took = disabled.elapsed();
    for at in [here, there] {
        assert!(last_accepted(&account, at, disabled).await < took + WITHIN);
        assert!(last_seen(&session, at, disabled).await < took + WITHIN);
        assert_eq!(account.post(at, "/v1/users/login", &login).await.status, 401);
        assert_eq!(other.chat(at, &chat("fixed", 10)).await.status, 200, "nobody else is kept out");
    }

    let said = world.command(&["user", "enable", &account.email]).await;
    assert_eq!(said.trim(), format!("{} is enabled", account.email));
    for at in [here, there] {
        let works = async || (account.chat(at, &chat("fixed", 10)).await.status == 200).then_some(());
        until("the key works again", works).await;
        assert_eq!(session.get(at, "/v1/users/me").await.status, 200);
    }
    world.settled().await;
}

on_both! {
    async fn on_one_server(backend) {
        stops_everywhere(backend, 1).await;
    }

    async fn a_user_on_one_server(backend) {
        a_disabled_user_is_kept_out(backend, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_on_two_servers() {
    a_disabled_user_is_kept_out(Backend::Postgres, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_two_servers() {
    stops_everywhere(Backend::Postgres, 2).await;
}
