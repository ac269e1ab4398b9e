//! A key's requests a minute are exact: over restarts, reloads and any number of servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{task::JoinSet, time::sleep};

use crate::harness::{Account, Address, Backend, Settings, World, chat, on_both};

/// Requests a minute of every key here.
const LIMIT: u64 = 24;
/// What must be left of a minute for a test not to straddle it.
const ROOM: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "the servers' minute is the wall clock's")]
fn since_minute_began() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Duration::from_nanos((now.as_nanos() % MINUTE.as_nanos()).try_into().unwrap())
}

/// Waits for a new minute if this one is nearly over.
async fn fresh_minute() {
    let left = MINUTE - since_minute_began();
    if left < ROOM {
        sleep(left + Duration::from_millis(50)).await;
    }
}

/// So many requests at once; how many were answered. The others must have been told to come back next minute.
async fn burst(account: &Account, at: &[&Address], requests: usize) -> u64 {
    let mut all = JoinSet::new();
    for index in 0..requests {
        let (account, at) = (account.clone(), at[index % at.len()].clone());
        all.spawn(async move { account.chat(&at, &chat("fixed", 10)).await });
    }
    let mut answered = 0;
    for reply in all.join_all().await {
        if reply.status == 200 {
            answered += 1;
            continue;
        }
        assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"), "{reply:?}");
        let number = |name| reply.header(name).and_then(|text| text.parse::<u64>().ok());
        assert!(number("retry-after").is_some_and(|seconds| (1..=60).contains(&seconds)), "{reply:?}");
        assert_eq!(number("x-ratelimit-limit-requests"), Some(LIMIT));
        assert_eq!(number("x-ratelimit-remaining-requests"), Some(0));
        assert!(reply.header("x-ratelimit-reset-requests").is_some());
    }
    answered
}

async fn limited(world: &World, account: &Account) -> Account {
    account.with_key(&world.key(&account.email, &["--rpm", &LIMIT.to_string()]).await)
}

on_both! {
    async fn one_server_counts_exactly_and_says_so(backend) {
        let world = World::new(backend, Settings::default()).await;
        let node = world.node().await;
        let account = world.account(1000).await;
        let account = limited(&world, &account).await;
        let at = &node.address;
        fresh_minute().await;
        for used in 1..=3 {
            let reply = account.chat(at, &chat("fixed", 10)).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("24"));
            assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some((LIMIT - used).to_string().as_str()));
        }
        assert_eq!(burst(&account, &[at], 60).await, LIMIT - 3);
        assert_eq!(burst(&account, &[at], 2).await, 0);
    }

    async fn a_restart_in_good_order_forgets_nothing(backend) {
        let world = World::new(backend, Settings::default()).await;
        let mut node = world.node().await;
        let account = world.account(1000).await;
        let account = limited(&world, &account).await;
        fresh_minute().await;
        assert_eq!(burst(&account, &[&node.address], 10).await, 10);
        assert!(node.terminate().await.success());
        node.start_again().await;
        assert_eq!(burst(&account, &[&node.address], 40).await, LIMIT - 10);
    }

    async fn kill_minus_nine_never_gives_more(backend) {
        let world = World::new(backend, Settings::default()).await;
        let mut node = world.node().await;
        let account = world.account(1000).await;
        let account = limited(&world, &account).await;
        fresh_minute().await;
        let mut answered = burst(&account, &[&node.address], 5).await;
        for _ in 0..3 {
            node.kill().await;
            node.start_again().await;
            answered += burst(&account, &[&node.address], 5).await;
        }
        answered += burst(&account, &[&node.address], 40).await;
        assert!((5..=LIMIT).contains(&answered), "{answered} of {LIMIT} requests in a minute");
        assert_eq!(world.sim().calls(), answered);
    }

    async fn a_reload_forgets_nothing(backend) {
        let world = World::new(backend, Settings::default()).await;
        let node = world.node().await;
        let account = world.account(1000).await;
        let account = limited(&world, &account).await;
        let at = &node.address;
        fresh_minute().await;
        assert_eq!(burst(&account, &[at], 10).await, 10);
        world.configure(&Settings::default().model("added", "sim:tokens=1"));
        node.reload();
        crate::harness::until("the new model is served", async || {
            (account.get(at, "/v1/models/added").await.status == 200).then_some(())
        })
        .await;
        assert_eq!(burst(&account, &[at], 40).await, LIMIT - 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_share_one_minute() {
    let world = World::new(Backend::Postgres, Settings::default()).await;
    let nodes = world.nodes(3).await;
    let at: Vec<&Address> = nodes.iter().map(|node| &node.address).collect();
    let account = world.account(1000).await;
    let account = limited(&world, &account).await;
    fresh_minute().await;
    assert_eq!(burst(&account, &at, 90).await, LIMIT);
    assert_eq!(world.sim().calls(), LIMIT);
}
