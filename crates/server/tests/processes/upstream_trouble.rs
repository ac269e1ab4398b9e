//! What an operator sees of a model server that fails: in the metrics, in the log, and by the commands that ask it.

use batchin_sim::{Answer, Behaviour, Refusal};

use crate::harness::{Account, Backend, Node, Settings, World, chat, until};

const MODEL: &str = "sim:tokens=10";

async fn metrics(account: &Account, node: &Node) -> String {
    String::from_utf8(account.get(&node.address, "/metrics").await.body.to_vec()).unwrap()
}

/// What it says, also of what a test's installation lacks.
async fn doctor(world: &World) -> String {
    world.try_command(&["doctor"]).await.out
}

async fn until_shown(account: &Account, node: &Node, line: &str) {
    until(line, async || metrics(account, node).await.lines().any(|shown| shown == line).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_is_seen_everywhere_and_told_once() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let sim = world.sim();
    sim.script(MODEL, Behaviour::Answer(Answer::of(10)));
    let (node, account) = (world.node().await, world.account(100).await);
    until_shown(&account, &node, r#"batchin_upstream_healthy{upstream="sim-0"} 1"#).await;
    assert_eq!(world.command(&["models", "check"]).await.trim(), "sim-0 (vllm) answers, and has its models");
    assert!(doctor(&world).await.contains("ok     upstream: sim-0 answers, and has its models"));

    // A client's own fault is no failure of the server.
    sim.script(MODEL, Behaviour::Refuse(Refusal::vllm(400, "prompt too long")));
    assert_eq!(account.chat(&node.address, &chat("fixed", 10)).await.status, 400);
    assert!(!metrics(&account, &node).await.contains("batchin_upstream_failures_total"));

    sim.script(MODEL, Behaviour::Refuse(Refusal::string(401, "Unauthorized")));
    for _ in 0..3 {
        let reply = account.chat(&node.address, &chat("fixed", 10)).await;
        assert!([502, 503].contains(&reply.status), "{}", reply.status);
    }
    for line in [
        r#"batchin_upstream_healthy{upstream="sim-0"} 0"#,
        r#"batchin_upstream_trouble{upstream="sim-0",cause="key_refused"} 1"#,
        r#"batchin_upstream_breaker{upstream="sim-0",state="open"} 1"#,
        r#"batchin_upstream_breaker{upstream="sim-0",state="closed"} 0"#,
    ] {
        until_shown(&account, &node, line).await;
    }
    sim.set_health(401);
    let asked = world.failing_command(&["models", "check"]).await;
    assert_eq!(asked.trim(), "sim-0 (vllm) refuses our key");
    assert!(doctor(&world).await.contains("WRONG  upstream: sim-0 refuses our key"));
    let warnings =
        |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains("refuses our key")).count();
    assert_eq!(warnings(&node.log()), 1, "once, whoever meets it first");

    sim.script(MODEL, Behaviour::Answer(Answer::of(10)));
    sim.set_health(200);
    until("it is asked again", async || {
        (account.chat(&node.address, &chat("fixed", 10)).await.status == 200).then_some(())
    })
    .await;
    until_shown(&account, &node, r#"batchin_upstream_healthy{upstream="sim-0"} 1"#).await;
    until_shown(&account, &node, r#"batchin_upstream_trouble{upstream="sim-0",cause="key_refused"} 0"#).await;
    assert!(node.log().contains("works again"));
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_a_server_does_not_have_is_named() {
    let world = World::new(Backend::Sqlite, Settings::default().model("other", "not-there")).await;
    world.sim().script(MODEL, Behaviour::Answer(Answer::of(10)));
    let asked = world.failing_command(&["models", "check"]).await;
    assert_eq!(asked.trim(), "sim-0 (vllm) answers, and does not list not-there");
}
