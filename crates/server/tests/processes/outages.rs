//! PostgreSQL stops as if the power had failed, and comes back: the servers go on by themselves, and the books balance.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::harness::{Address, Cluster, Load, PATIENCE, World, books_balance, chat, each_task_once, until};

const CLIENTS: usize = 8;
const TASKS: usize = 60;
/// Requests that reach the model server before the next crash.
const SERVED: u64 = 60;

/// The database goes away, once for each of these times; the servers find it again by themselves.
async fn comes_back(servers: usize, away: &[Duration]) {
    let mut cluster = Cluster::start();
    let world = World::on_cluster(&cluster, Load::settings()).await;
    let nodes = world.nodes(servers).await;
    let at: Vec<&Address> = nodes.iter().map(|node| &node.address).collect();
    let account = world.account(100_000).await;
    let batch = account.submit(at[0], "high", &Load::tasks(TASKS)).await;
    let load = Load::start(&account, &at, CLIENTS);
    for away in away {
        let calls = world.sim().calls();
        timeout(PATIENCE, world.sim().until_calls(calls + SERVED)).await.expect("clients are served");
        cluster.crash();
        sleep(*away).await;
        cluster.start_again();
        for at in &at {
            let answered = async || (account.chat(at, &chat("fixed", 10)).await.status == 200).then_some(());
            until("the server has found its database again", answered).await;
        }
    }
    let acknowledged = load.stop().await;
    assert!(acknowledged.len() > CLIENTS, "the clients were served: {}", acknowledged.len());
    each_task_once(&account, at[0], &batch, TASKS).await;
    books_balance(&world, &account, at[0], &acknowledged).await;
}

/// Back at once, within the servers' lease, and long after its end, when one server may take back what another had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_lose_and_double_nothing() {
    comes_back(2, &[Duration::ZERO, Duration::from_millis(800), Duration::from_secs(5)]).await;
}

/// Nobody takes anything back from a server that is alone, and it gives up what it could not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_keeps_nothing_locked_up() {
    comes_back(1, &[Duration::from_secs(23)]).await;
}
