//! Holds: chains that go another way, shallow and deep, and watchers that come late.

use batchin_evm::{Confirmation, Event, ScanError, confirm};

use crate::world::{ALICE, CHAIN, Watcher, chain};

#[tokio::test]
async fn what_a_reorganisation_drops_is_orphaned_and_counts_once_when_it_comes_again() {
    for depth in [1, 5, 40] {
        let chain = chain().await;
        let mut watcher = Watcher::start(chain.url()).await;
        chain.transfer(CHAIN.usdc, ALICE, 1).await;
        chain.mine(1).await;
        // Another log before it, the second time: its place among the block's logs is another one.
        let hash = chain.transfer(CHAIN.usdc, ALICE, 2).await;
        chain.mine(depth).await;
        watcher.catch_up().await;
        assert_eq!(watcher.values(), [1, 2], "{depth}");
        let first = watcher.seen.values().find(|(seen, _)| seen.value == 2).unwrap().0.clone();

        chain.reorg(depth).await;
        watcher.catch_up().await;
        assert_eq!((watcher.values(), watcher.orphaned), (vec![1], depth as usize), "{depth}");
        assert_eq!(confirm(&watcher.rpc, &CHAIN, std::slice::from_ref(&first)).await.unwrap(), [Confirmation::Unknown]);

        assert_eq!(chain.transfer(CHAIN.usdc, ALICE, 2).await, hash, "the same transaction");
        chain.mine(1).await;
        watcher.catch_up().await;
        assert_eq!((watcher.values(), watcher.seen.len()), (vec![1, 2], 2), "{depth}");
        let (again, _) = &watcher.seen[&first.id];
        assert_ne!(again.block, first.block);
        let said = confirm(&watcher.rpc, &CHAIN, &[first, again.clone()]).await.unwrap();
        assert_eq!(said, [Confirmation::OtherBlock, Confirmation::Agrees]);
    }
}

#[tokio::test]
async fn a_shorter_chain_and_one_that_changed_while_nobody_looked_are_followed() {
    let chain = chain().await;
    let mut watcher = Watcher::start(chain.url()).await;
    chain.transfer(CHAIN.usdc, ALICE, 3).await;
    chain.mine(10).await;
    watcher.catch_up().await;
    assert_eq!(watcher.values(), [3]);

    chain.roll_back(12).await;
    chain.reorg(1).await;
    watcher.catch_up().await;
    assert_eq!((watcher.values(), watcher.orphaned), (vec![], 13));

    // A restart reads again what it had read, and still sees that those blocks have gone.
    chain.transfer(CHAIN.usdc, ALICE, 4).await;
    chain.mine(6).await;
    watcher.catch_up().await;
    chain.reorg(8).await;
    chain.mine(300).await;
    watcher.state = watcher.state.rewound(24);
    watcher.catch_up().await;
    assert_eq!(watcher.values(), Vec::<u128>::new());
    assert_eq!(watcher.state.tip().number, chain.height().await);
}

#[tokio::test]
async fn whoever_comes_late_reads_ranges_and_misses_nothing() {
    let chain = chain().await;
    let mut watcher = Watcher::start(chain.url()).await;
    for value in [1, 2, 3] {
        chain.transfer(CHAIN.usdc, ALICE, value).await;
        chain.mine(700).await;
    }
    let before = watcher.rpc.calls();
    watcher.catch_up().await;
    let calls = watcher.rpc.calls() - before;
    assert_eq!(watcher.values(), [1, 2, 3]);
    assert!(calls < 400, "{calls}");
    assert_eq!(watcher.told, 3);

    // Deeper than is remembered: nobody decides that but a person.
    chain.reorg(200).await;
    let error = watcher.step().await.unwrap_err();
    assert!(matches!(error, ScanError::Deep(deep) if deep.chain_id == CHAIN.id), "{error}");
}

#[tokio::test]
async fn a_step_that_is_done_again_brings_the_same() {
    let chain = chain().await;
    let mut watcher = Watcher::start(chain.url()).await;
    chain.transfer(CHAIN.usdc, ALICE, 1).await;
    chain.mine(3).await;
    let before = watcher.state.clone();
    let first = loop {
        let state = watcher.state.clone();
        let scan = watcher.step().await.unwrap();
        if scan.events.iter().any(|event| matches!(event, Event::Seen(_))) {
            watcher.state = state;
            break scan;
        }
        assert_ne!(watcher.state, before);
    };
    // Killed before it was stored.
    let again = watcher.step().await.unwrap();
    assert_eq!(again, first);
}
