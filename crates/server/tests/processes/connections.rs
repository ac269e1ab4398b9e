//! Connections to the database are cut, again and again: requests may fail, the books may not.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::{Backend, Load, World, books_balance, chat, until};

const CUTS: usize = 12;
const CLIENTS: usize = 8;
/// Between two cuts: a few group commits.
const PAUSE: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_charged_once() {
    let world = World::new(Backend::Postgres, Load::settings()).await;
    let nodes = [world.node().await, world.node().await];
    let account = world.account(100_000).await;
    let at = [&nodes[0].address, &nodes[1].address];
    let load = Load::start(&account, &at, CLIENTS);
    for _ in 0..CUTS {
        sleep(PAUSE).await;
        world.cut_connections();
    }
    let acknowledged = load.stop().await;
    assert!(acknowledged.len() > CUTS, "the clients were served: {}", acknowledged.len());
    for at in at {
        let answered = async || (account.chat(at, &chat("fixed", 10)).await.status == 200).then_some(());
        until("the server has found its database again", answered).await;
    }
    books_balance(&world, &account, at[0], &acknowledged).await;
}
