//! A model server that is drained once gets nothing new from any node, whatever is restarted.

use serde_json::Value;

use crate::harness::{Account, Backend, Node, Settings, World, chat, until};

async fn status(account: &Account, node: &Node) -> u16 {
    account.chat(&node.address, &chat("fixed", 10)).await.status
}

async fn until_each(account: &Account, nodes: &[Node], expected: u16) {
    for node in nodes {
        until("each node takes notice", async || (status(account, node).await == expected).then_some(())).await;
    }
}

async fn upstream(world: &World) -> Value {
    serde_json::from_str(&world.command(&["upstreams", "list", "--json"]).await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_holds_on_every_node_and_outlasts_restarts() {
    let world = World::new(Backend::Postgres, Settings::default().model("slow", "sim:tokens=10,first_ms=3000")).await;
    let mut nodes = world.nodes(2).await;
    let account = world.account(1_000).await;
    until_each(&account, &nodes, 200).await;
    assert_eq!(upstream(&world).await["drained"], false);
    let calls = world.sim().calls();
    let (asking, at) = (account.clone(), nodes[1].address.clone());
    let slow = tokio::task::JoinSet::from_iter([async move { asking.chat(&at, &chat("slow", 10)).await.status }]);
    world.sim().until_calls(calls + 1).await;

    let told = world.command(&["upstreams", "drain", "sim-0"]).await;
    assert!(told.contains("drained since") && told.contains("not every node has taken notice yet"), "{told}");
    until_each(&account, &nodes, 503).await;
    let calls = world.sim().calls();
    let seen = async || Some(upstream(&world).await).filter(|one| one["outstanding"] == 1);
    assert_eq!(until("the call on the other node is seen", seen).await["idle"], false);
    assert_eq!(slow.join_all().await, [200], "what is under way goes on");
    until("it is idle", async || (upstream(&world).await["idle"] == true).then_some(())).await;

    nodes[1].kill().await;
    nodes[1].start_again().await;
    assert_eq!(status(&account, &nodes[1]).await, 503, "from the first request on");
    assert_eq!(world.sim().calls(), calls);

    for name in ["sim-9", "../sim-0"] {
        world.failing_command(&["upstreams", "drain", name]).await;
        world.failing_command(&["upstreams", "resume", name]).await;
    }
    assert!(world.command(&["upstreams", "resume", "sim-0"]).await.contains("in service"));
    until_each(&account, &nodes, 200).await;
    world.settled().await;
}
