//! Servers on one database that do not fit together: each is told, and what would fail other customers' tasks does not
//! join.

use crate::harness::{Account, Address, Backend, Settings, World, on_both, until};

/// A line of `/metrics`.
async fn metric(account: &Account, at: &Address, line: &str) -> Option<String> {
    let scraped = account.get(at, "/metrics").await;
    let text = String::from_utf8_lossy(&scraped.body);
    text.lines().find_map(|found| found.strip_prefix(line)).map(|value| value.trim().to_owned())
}

on_both! {
    async fn blobs_that_the_others_cannot_read_keep_a_server_out(backend) {
        let world = World::new(backend, Settings::default()).await;
        let mut first = world.node().await;
        let mut second = world.node_with(&Settings::default(), "elsewhere");
        if backend == Backend::Sqlite {
            // One server at a time, and no other blobs the next time either.
            first.kill().await;
        }
        assert!(!second.starts().await);
        assert!(second.log().contains("is not where the other nodes of this database have their blobs"), "{}", second.log());
        let (fine, findings) = second.command(&["doctor"]).await;
        assert!(!fine && findings.contains("WRONG  blobs"), "{findings}");
        // With the same blobs it joins.
        let mut third = world.node_with(&Settings::default(), "blobs");
        assert!(third.starts().await, "{}", third.log());
        let (_, findings) = third.command(&["doctor"]).await;
        assert!(findings.contains("ok     blobs"), "{findings}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_prices_are_said_aloud_and_counted() {
    const DIFFER: &str = "batchin_node_disagreements{what=\"prices\"}";
    let world = World::new(Backend::Postgres, Settings::default()).await;
    let first = world.node().await;
    let account = world.beggar().await;
    let dearer = Settings::default().priced("fixed", "200");
    let mut second = world.node_with(&dearer, "blobs");
    second.start_again().await;
    for node in [&first, &second] {
        let counted = async || (metric(&account, &node.address, DIFFER).await.as_deref() == Some("1")).then_some(());
        until("the node sees that another has other prices", counted).await;
        assert!(node.log().contains("charge by other prices"), "{}", node.log());
    }
    let (_, findings) = second.command(&["doctor"]).await;
    assert!(findings.contains("runs with other prices"), "{findings}");
    // Once all have the same, nobody says so any more.
    world.configure(&dearer);
    first.reload();
    let agreed = async || (metric(&account, &first.address, DIFFER).await.as_deref() == Some("0")).then_some(());
    until("the node sees that all have the same prices", agreed).await;
}
