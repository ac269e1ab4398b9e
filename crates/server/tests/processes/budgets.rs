//! A key's monthly budget is exact, however many ask at once.

use tokio::task::JoinSet;

use crate::harness::{Account, Address, Backend, Node, Settings, TOKEN, World, chat, on_both};

/// A budget worth ten answers, a balance worth a thousand, a hundred requests at once.
async fn ten_of_a_hundred(backend: Backend, nodes: usize) {
    let world = World::new(backend, Settings::default()).await;
    let nodes = world.nodes(nodes).await;
    let at: Vec<&Address> = nodes.iter().map(|node: &Node| &node.address).collect();
    let owner = world.account(100).await;
    let key = world.key(&owner.email, &["--rpm", "10000000", "--budget-cents", "1"]).await;
    let account = owner.with_key(&key);

    let mut all = JoinSet::new();
    for index in 0..100 {
        let (account, at): (Account, Address) = (account.clone(), at[index % at.len()].clone());
        all.spawn(async move { account.chat(&at, &chat("fixed", 10)).await });
    }
    let mut answered = 0;
    for reply in all.join_all().await {
        match reply.status {
            200 => answered += 1,
            _ => assert_eq!((reply.status, reply.code().as_str()), (402, "payment_required"), "{reply:?}"),
        }
    }
    assert_eq!(answered, 10);
    assert_eq!(owner.funded - owner.balance(at[0]).await, 100 * TOKEN);
    let summary = account.get(at[0], "/v1/usage/summary").await;
    assert_eq!(summary.status, 402, "documented for a key whose budget is used up: {summary:?}");
    // Another key of the same user is none of this one's business.
    assert_eq!(owner.chat(at[0], &chat("fixed", 10)).await.status, 200);
    world.settled().await;
}

on_both! {
    async fn ten_of_a_hundred_on_one_server(backend) {
        ten_of_a_hundred(backend, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_of_a_hundred_on_three_servers() {
    ten_of_a_hundred(Backend::Postgres, 3).await;
}
