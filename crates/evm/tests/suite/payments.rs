//! Holds: what is a payment and what is none.

use batchin_evm::{Confirmation, Tag, TokenKind, TransferId, confirm};

use crate::world::{ALICE, BOB, CHAIN, Watcher, chain};

/// A token of the same name at another address.
const FALSE_TOKEN: &str = "0x00000000000000000000000000000000000fa15e";

#[tokio::test]
async fn transfers_of_one_transaction_are_told_apart() {
    let chain = chain().await;
    let mut watcher = Watcher::start(chain.url()).await;
    let stranger = "0x00000000000000000000000000000000000a11ce".to_owned();
    let payments = [
        (stranger, 1),
        (ALICE.to_owned(), 2),
        (BOB.to_owned(), 3),
        (ALICE.to_owned(), 2),
        (ALICE.to_owned(), 0),
        (ALICE.to_owned(), 5),
    ];
    let hash = chain.transfer_many(CHAIN.usdc, &payments).await;
    chain.mine(1).await;
    let height = chain.height().await;
    let reached = watcher.catch_up().await;

    assert_eq!(watcher.values(), [2, 2, 3, 5]);
    assert_eq!(watcher.skipped.of_nothing, 1);
    let id = |to: &str, nth| TransferId {
        chain_id: CHAIN.id,
        transaction: hash.parse().unwrap(),
        token: CHAIN.usdc,
        to: to.parse().unwrap(),
        nth,
    };
    for (to, nth, value) in [(ALICE, 0, 2), (ALICE, 1, 2), (ALICE, 2, 5), (BOB, 0, 3)] {
        let (seen, _) = &watcher.seen[&id(to, nth)];
        assert_eq!((seen.value, seen.block.number, seen.kind), (value, height, TokenKind::Usdc), "{to} {nth}");
        assert_eq!(seen.id.to_string().parse(), Ok(seen.id));
        assert_eq!(seen.from, chain.payer().parse().unwrap());
    }
    // What is watched besides changes no key.
    watcher.addresses.remove(1);
    watcher.state = watcher.state.rewound(3);
    watcher.catch_up().await;
    assert_eq!((watcher.seen.len(), watcher.told), (4, 7));

    let standing = CHAIN.standing(height, 2, &reached);
    assert_eq!((standing.confirmations, standing.waits_for, standing.is_final()), (1, Some(Tag::Safe), false));
    chain.mine(40).await;
    let standing = CHAIN.standing(height, 2, &watcher.catch_up().await);
    assert_eq!((standing.confirmations, standing.is_final()), (41, true));

    let all: Vec<_> = watcher.seen.values().map(|(seen, _)| seen.clone()).collect();
    assert_eq!(confirm(&watcher.rpc, &CHAIN, &all).await.unwrap(), [Confirmation::Agrees; 4]);
    let mut other = all[0].clone();
    other.value += 1;
    assert_eq!(confirm(&watcher.rpc, &CHAIN, &[other]).await.unwrap(), [Confirmation::Contradicts]);
    let mut other = all[0].clone();
    other.id.nth += 9;
    assert_eq!(confirm(&watcher.rpc, &CHAIN, &[other]).await.unwrap(), [Confirmation::Contradicts]);
    let mut other = all[0].clone();
    other.id.transaction = batchin_evm::Hash::from_bytes([7; 32]);
    assert_eq!(confirm(&watcher.rpc, &CHAIN, &[other]).await.unwrap(), [Confirmation::Unknown]);
}

#[tokio::test]
async fn what_only_looks_like_a_payment_is_none() {
    let chain = chain().await;
    let bridged = CHAIN.unsupported[0];
    chain.place_token(FALSE_TOKEN).await;
    chain.place_token(bridged).await;
    chain.mine(1).await;
    let mut watcher = Watcher::start(chain.url()).await;
    chain.transfer(FALSE_TOKEN, ALICE, 7).await;
    chain.transfer(CHAIN.usdc, ALICE, 0).await;
    chain.transfer_piece(CHAIN.usdc, ALICE, 11).await;
    chain.transfer(bridged, ALICE, 13).await;
    chain.mine(1).await;
    watcher.catch_up().await;

    let (seen, _) = watcher.seen.values().next().unwrap();
    assert_eq!((watcher.told, seen.kind, seen.value, seen.id.token), (1, TokenKind::Unsupported, 13, bridged));
    assert_eq!((watcher.skipped.of_nothing, watcher.skipped.of_other_form), (1, 1));
}
