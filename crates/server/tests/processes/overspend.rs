//! Nobody spends more than they have, at any number of servers, and nothing is stuck afterwards.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::harness::{Account, Address, Backend, CENT, Node, Settings, TOKEN, World, chat, on_both};

/// Nano-dollars of one answer of the model `fixed`.
const ANSWER: i64 = 10 * TOKEN;

fn addresses(nodes: &[Node]) -> Vec<Address> {
    nodes.iter().map(|node| node.address.clone()).collect()
}

/// So many requests at once, spread over the servers. Returns how many were answered; the rest must be refused for
/// want of money.
async fn storm(account: &Account, at: &[Address], requests: usize) -> i64 {
    let mut all = JoinSet::new();
    for index in 0..requests {
        let (account, at) = (account.clone(), at[index % at.len()].clone());
        all.spawn(async move { account.chat(&at, &chat("fixed", 10)).await });
    }
    let mut answered = 0;
    while let Some(reply) = all.join_next().await {
        let reply = reply.unwrap();
        match reply.status {
            200 => answered += 1,
            402 => assert_eq!(reply.code(), "payment_required"),
            _ => panic!("neither answered nor refused: {reply:?}"),
        }
    }
    answered
}

/// Two hundred requests at once on a balance that is worth ten.
async fn ten_of_two_hundred(backend: Backend, nodes: usize) {
    let world = World::new(backend, Settings::default()).await;
    let servers = world.nodes(nodes).await;
    let nodes = addresses(&servers);
    let account = world.account(1).await;

    // What a request holds is what it costs, so that every cent can be spent, and nobody who can pay is refused.
    assert_eq!(storm(&account, &nodes, 200).await, 10);
    assert_eq!(account.balance(&nodes[0]).await, 0);
    assert_eq!(world.sim().calls(), 10);

    // Three requests fewer than there is money for: what is left is free again, on whichever server asks for it.
    world.grant(&account.email, 1).await;
    assert_eq!(storm(&account, &nodes, 7).await, 7);
    world.settled().await;
    assert_eq!(account.balance(&nodes[0]).await, 3 * ANSWER);
    for at in nodes.iter().cycle().take(3) {
        assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
    }
    assert_eq!(account.chat(&nodes[0], &chat("fixed", 10)).await.status, 402);
    let ledger = world.settled().await;
    assert_eq!((ledger.usage_rows, ledger.late), (20, 0));
    assert_eq!(account.summary(&nodes[0]).await, (20, 2 * CENT));
}

/// One dollar, 64 clients who set aside twice what they use, until the dollar is gone; then its very last token.
async fn one_dollar(backend: Backend, nodes: usize) {
    const HELD: i64 = 50;
    const USED: i64 = 25;
    let settings = Settings::default().model("half", "sim:tokens=25").model("long", "sim:tokens=1000");
    let world = World::new(backend, settings).await;
    let servers = world.nodes(nodes).await;
    let nodes = Arc::new(addresses(&servers));
    let account = world.account(100).await;
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let (account, nodes) = (account.clone(), Arc::clone(&nodes));
        clients.spawn(async move {
            let mut answered = 0;
            for turn in client.. {
                let at: &Address = &nodes[turn % nodes.len()];
                let reply = account.chat(at, &chat("half", HELD)).await;
                match reply.status {
                    200 => answered += 1,
                    // The others' holds may have been in the way; what counts is what is left.
                    402 if account.balance(at).await >= HELD * TOKEN => {}
                    402 => break,
                    _ => panic!("neither answered nor refused: {reply:?}"),
                }
            }
            answered
        });
    }
    let answered: i64 = clients.join_all().await.into_iter().sum();
    let left = 100 * CENT - answered * USED * TOKEN;
    assert!((0..HELD * TOKEN).contains(&left), "{answered} answers leave {left} nano-dollars of a dollar");
    let at = nodes.last().unwrap();
    assert_eq!(account.balance(at).await, left);
    assert_eq!(account.chat(at, &chat("long", left / TOKEN + 1)).await.status, 402);
    if left > 0 {
        assert_eq!(account.chat(at, &chat("long", left / TOKEN)).await.status, 200);
    }
    assert_eq!(account.balance(at).await, 0);
    assert_eq!(world.settled().await.late, 0);
}

on_both! {
    async fn ten_of_two_hundred_on_one_server(backend) {
        ten_of_two_hundred(backend, 1).await;
    }

    async fn one_dollar_on_one_server(backend) {
        one_dollar(backend, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_of_two_hundred_on_three_servers() {
    ten_of_two_hundred(Backend::Postgres, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_of_two_hundred_on_five_servers() {
    ten_of_two_hundred(Backend::Postgres, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dollar_on_three_servers() {
    one_dollar(Backend::Postgres, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dollar_on_five_servers() {
    one_dollar(Backend::Postgres, 5).await;
}
