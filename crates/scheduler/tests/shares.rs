//! Properties of the shares that a node takes.

use batchin_domain::{AccountId, BatchId};
use batchin_scheduler::{Waiting, shares};
use proptest::prelude::*;
use uuid::Uuid;

fn waiting(batches: &[u8]) -> Vec<Waiting> {
    let mut next = 0;
    let mut all = Vec::new();
    for (account, number) in (1_u128..).zip(batches) {
        for _ in 0..*number {
            next += 1;
            let (batch, account) = (BatchId::new(Uuid::from_u128(next)), AccountId::new(Uuid::from_u128(account)));
            all.push(Waiting { batch, account });
        }
    }
    all
}

proptest! {
    #[test]
    fn room_is_filled_and_shared_alike(batches in prop::collection::vec(1_u8..20, 1..30), room in 0_u32..200) {
        let all = waiting(&batches);
        let shares = shares(&all, room, false);
        prop_assert_eq!(shares.take.iter().map(|(_, n)| n).sum::<u32>(), room);
        let of = |account: usize| -> u32 {
            let account = AccountId::new(Uuid::from_u128(account as u128 + 1));
            let of_account = |batch: &BatchId| all.iter().any(|w| w.batch == *batch && w.account == account);
            shares.take.iter().filter(|(batch, _)| of_account(batch)).map(|(_, n)| n).sum()
        };
        let each: Vec<u32> = (0..batches.len().min(room as usize)).map(of).collect();
        if let (Some(most), Some(least)) = (each.iter().max(), each.iter().min()) {
            prop_assert!(most - least <= 1, "{each:?}");
        }
        // Where there is no room for all, the next look goes on after the last.
        prop_assert_eq!(shares.last.is_some(), room > 0 && (room as usize) < batches.len());
    }

    #[test]
    fn a_million_tasks_of_one_account_keep_no_other_back(room in 2_u32..500) {
        let all = waiting(&[200, 1]);
        let shares = shares(&all, room, true);
        let last = all.last().unwrap().batch;
        let of_last = shares.take.iter().find(|(batch, _)| *batch == last).map(|(_, n)| *n).unwrap();
        prop_assert!(of_last >= room / 2);
        prop_assert_eq!(shares.last, Some(all.last().unwrap().account));
    }
}
