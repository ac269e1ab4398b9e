//! A key's monthly budget is exact on both sides of the turn of a month, also for what is under way at the turn.

use std::time::Duration;

use batchin_domain::{Clock as _, Timestamp};
use batchin_testkit::TestClock;
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Account, Backend, Node, PATIENCE, Settings, TOKEN, World, chat, on_both, until};

/// How long before the turn the servers start: time to use the old month's budget up, on a busy machine.
const BEFORE: Duration = Duration::from_secs(8);
/// Answers that the budget of one cent pays for.
const MONTHLY: usize = 10;
const REQUESTS: usize = 30;

/// Many requests at once; how many were answered. The others must be refused for the budget.
async fn storm(account: &Account, nodes: &[Node]) -> usize {
    let mut all = JoinSet::new();
    for index in 0..REQUESTS {
        let (account, at) = (account.clone(), nodes[index % nodes.len()].address.clone());
        all.spawn(async move { account.chat(&at, &chat("fixed", 10)).await });
    }
    let replies = all.join_all().await;
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!((reply.status, reply.code().as_str()), (402, "payment_required"), "{reply:?}");
    }
    replies.iter().filter(|reply| reply.status == 200).count()
}

async fn turns(backend: Backend, nodes: usize) {
    let across = format!("sim:tokens=10,first_ms={}", BEFORE.as_millis() + 1_000);
    let world = World::new(backend, Settings::default().model("across", &across)).await;
    let owner = world.account(100).await;
    let account = owner.with_key(&world.key(&owner.email, &["--rpm", "1000000", "--budget-cents", "1"]).await);
    let clock = TestClock::default();
    let turn = clock.now().month().next().start();
    let ahead = Duration::from_secs(turn.since(clock.now()).saturating_sub(BEFORE).as_secs());
    let now = || -> Timestamp { clock.now().after(ahead) };
    let world = world.with_clock_ahead(ahead);
    let mut nodes = world.nodes(nodes).await;
    let at = nodes[0].address.clone();

    // Begun in the old month and answered in the new one: it is the old one's.
    let (asking, there) = (account.clone(), at.clone());
    let under_way = JoinSet::from_iter([async move { asking.chat(&there, &chat("across", 10)).await }]);
    timeout(PATIENCE, world.sim().until_calls(1)).await.expect("the request runs");
    assert_eq!(storm(&account, &nodes).await, MONTHLY - 1);
    assert!(now() < turn, "the machine is too slow for this test: the month is over");

    let first = until("the new month pays", async || {
        let reply = account.chat(&at, &chat("fixed", 10)).await;
        (reply.status == 200).then(now)
    });
    assert!(first.await >= turn, "it is answered in the old month");
    assert_eq!(under_way.join_all().await[0].status, 200);
    assert_eq!(storm(&account, &nodes).await, MONTHLY - 1);

    // What was spent is not forgotten by a server that dies.
    nodes[0].kill().await;
    nodes[0].start_again().await;
    assert_eq!(storm(&account, &nodes).await, 0);
    world.settled().await;
    let rows = owner.usage(&at).await;
    let came_in = rows.iter().map(|row| Timestamp::parse_rfc3339(row["created_at"].as_str().unwrap()).unwrap());
    let old = came_in.filter(|at| *at < turn).count();
    assert_eq!((old, rows.len() - old), (MONTHLY, MONTHLY), "{rows:?}");
    assert_eq!(owner.funded - owner.balance(&at).await, 2 * MONTHLY as i64 * 10 * TOKEN);
}

on_both! {
    async fn on_one_server(backend) {
        turns(backend, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_two_servers() {
    turns(Backend::Postgres, 2).await;
}
