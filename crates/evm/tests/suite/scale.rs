//! Holds: what a full block costs.

use std::collections::HashSet;

use batchin_evm::{Address, Confirmation, Event, Watch, begin, confirm, heads, scan};
use batchin_sim::chain::Liar;
use tokio::time::Instant;

use crate::world::{CHAIN, Watcher, chain, endpoint};

/// Ten thousand addresses, made up.
fn address(index: u32) -> Address {
    let mut bytes = [0xab; 20];
    bytes[16..].copy_from_slice(&index.to_be_bytes());
    Address::from_bytes(bytes)
}

#[tokio::test]
async fn a_block_costs_few_calls_also_where_each_is_read_again() {
    let chain = chain().await;
    let mut watcher = Watcher::start(chain.url()).await;
    watcher.catch_up().await;
    let (blocks, before) = (160, watcher.rpc.calls());
    for _ in 0..blocks {
        chain.mine(1).await;
        assert_eq!(watcher.step().await.unwrap().behind, 0);
    }
    let calls = watcher.rpc.calls() - before;
    println!("{calls} calls for {blocks} blocks that come one by one");
    assert!(calls <= 5 * blocks, "{calls}");
    assert!(serde_json::to_string(&watcher.state).unwrap().len() < 20_000, "what is remembered stays bounded");
}

#[tokio::test]
async fn calls_for_a_block_do_not_grow_with_the_addresses() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let rpc = endpoint(&liar.url());
    for watched in [1_000, 10_000] {
        let mut state = begin(&rpc, &CHAIN, &heads(&rpc).await.unwrap()).await.unwrap();
        let watch = Watch::new(&CHAIN, (0..watched).map(address).collect::<HashSet<_>>());
        loop {
            let step = scan(&rpc, &watch, state, &heads(&rpc).await.unwrap(), 50).await.unwrap();
            state = step.state;
            if step.behind == 0 {
                break;
            }
        }
        let payments: Vec<_> = (0..1000).map(|index| (address(index * (watched / 1000)).to_string(), 5)).collect();
        for payments in payments.chunks(250) {
            chain.transfer_many(CHAIN.usdc, payments).await;
        }
        chain.mine(1).await;
        let (calls, requests, from) = (rpc.calls(), rpc.requests(), Instant::now());
        let step = scan(&rpc, &watch, state, &heads(&rpc).await.unwrap(), 50).await.unwrap();
        let took = from.elapsed();
        let (calls, requests) = (rpc.calls() - calls, rpc.requests() - requests);
        println!(
            "{watched} addresses: {calls} calls in {requests} requests, {took:?}, largest request {} bytes",
            liar.most_bytes()
        );
        assert_eq!((step.events.len(), step.behind), (1000, 0));
        assert!(calls <= 6, "{calls}");
        assert!(liar.most_bytes() < 500_000, "{}", liar.most_bytes());
        let only_seen = |event| match event {
            Event::Seen(seen) => Some(seen),
            Event::Orphaned(_) => None,
        };
        let seen: Vec<_> = step.events.into_iter().filter_map(only_seen).collect();
        assert!(confirm(&rpc, &CHAIN, &seen).await.unwrap().iter().all(|said| *said == Confirmation::Agrees));
    }
}
