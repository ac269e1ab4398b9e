//! At the highest rate that the machine gives: every answer is charged, and what is over capacity is refused.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::{Settings, TOKEN, World, chat, on_both};

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(8);
/// Clients: more than the server takes on at once.
const CLIENTS: usize = 96;
const IN_FLIGHT: u32 = 48;
/// What a client does that was told to come back later.
const PAUSE: Duration = Duration::from_millis(5);

on_both! {
    async fn every_answer_is_charged(backend) {
        // Long enough that requests meet.
        let settings = Settings { max_in_flight: IN_FLIGHT, ..Settings::default() };
        let world = World::new(backend, settings.model("brief", "sim:tokens=10,first_ms=10")).await;
        let node = world.node().await;
        let account = world.account(100_000).await;
        let before = account.balance(&node.address).await;
        let end = Instant::now() + LOAD;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (account, at) = (account.clone(), node.address.clone());
            clients.spawn(async move {
                let mut seen: BTreeMap<u16, u64> = BTreeMap::new();
                while Instant::now() < end {
                    let reply = account.chat(&at, &chat("brief", 10)).await;
                    *seen.entry(reply.status).or_default() += 1;
                    if reply.status != 200 {
                        assert!(matches!(reply.status, 429 | 503), "{reply:?}");
                        assert!(reply.header("retry-after").is_some(), "{reply:?}");
                        sleep(PAUSE).await;
                    }
                }
                seen
            });
        }
        let mut seen: BTreeMap<u16, u64> = BTreeMap::new();
        for (status, count) in clients.join_all().await.into_iter().flatten() {
            *seen.entry(status).or_default() += count;
        }
        let answered = seen.get(&200).copied().unwrap_or_default();
        let cost = i64::try_from(answered).unwrap() * 10 * TOKEN;
        assert!(answered > 0 && seen.len() > 1, "the load is over capacity: {seen:?}");
        assert_eq!(world.sim().calls(), answered, "every call of the model server was answered, and the other way round");
        assert_eq!(account.summary(&node.address).await, (answered, cost));
        assert_eq!(before - account.balance(&node.address).await, cost);
        assert_eq!(world.settled().await.usage_rows, answered);
    }
}
