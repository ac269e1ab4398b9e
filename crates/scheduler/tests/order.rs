//! The order of queued batch work.

use std::{collections::HashMap, time::Duration};

use batchin_domain::{AccountId, Class, Priority, Timestamp};
use batchin_scheduler::{Entry, MAX_PASSED_OVER, MAX_QUEUED, QUANTUM, Queue, QueueFull, Verdict, cost_units};
use proptest::prelude::*;

fn account(n: u128) -> AccountId {
    AccountId::new(uuid::Uuid::from_u128(n))
}

fn entry(owner: u128, priority: Priority, cost: u64) -> Entry {
    Entry { account: account(owner), weight: 1, priority, cost, latest_start: None }
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_000_000)
}

fn pop_any<T>(queue: &mut Queue<T>) -> Option<T> {
    queue.pop_where(now(), |_, _| Verdict::Start).map(|popped| popped.item)
}

#[test]
fn class_comes_first_and_age_inside_an_account() {
    let mut queue = Queue::new();
    for (item, priority) in
        [(1, Priority::Fill), (2, Priority::Low), (3, Priority::High), (4, Priority::Low), (5, Priority::High)]
    {
        queue.push(entry(1, priority, 10), item).unwrap();
    }
    assert_eq!(queue.len_per_class(), [2, 2, 1]);
    let order: Vec<i32> = std::iter::from_fn(|| pop_any(&mut queue)).collect();
    assert_eq!(order, [3, 5, 2, 4, 1]);
    assert!(queue.is_empty());
}

#[test]
fn a_closed_class_does_not_hold_up_another() {
    let mut queue = Queue::new();
    queue.push(entry(1, Priority::Low, 1), "low").unwrap();
    queue.push(entry(1, Priority::Fill, 1), "fill").unwrap();
    let gate = |_: &&str, class| if class == Class::Low { Verdict::CloseClass } else { Verdict::Start };
    assert_eq!(queue.pop_where(now(), gate).unwrap().item, "fill");
    assert_eq!(queue.pop_where(now(), gate), None);
    assert_eq!(queue.len(), 1);
}

#[test]
fn late_work_is_promoted_to_high() {
    let mut queue = Queue::new();
    let due = now().after(Duration::from_secs(60));
    queue.push(entry(1, Priority::Low, 1), "in time").unwrap();
    queue.push(Entry { latest_start: Some(due), ..entry(1, Priority::Fill, 1) }, "late").unwrap();
    assert_eq!(queue.next_promotion(), Some(due));
    let high_only = |_: &&str, class| if class == Class::High { Verdict::Start } else { Verdict::CloseClass };
    assert_eq!(queue.pop_where(now(), high_only), None);
    let popped = queue.pop_where(due, high_only).unwrap();
    assert_eq!((popped.item, popped.class), ("late", Class::High));
    assert_eq!((queue.next_promotion(), queue.len_per_class()), (None, [0, 1, 0]));
}

#[test]
fn removed_items_never_start() {
    let mut queue = Queue::new();
    let places: Vec<_> = (0..10).map(|n| queue.push(entry(n % 3, Priority::Low, 9), n).unwrap()).collect();
    assert_eq!(queue.remove(places[4]), Some(4));
    assert_eq!(queue.remove(places[4]), None);
    let mut rest: Vec<_> = std::iter::from_fn(|| pop_any(&mut queue)).collect();
    rest.sort_unstable();
    assert_eq!(rest, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(queue.remove(places[0]), None);
}

#[test]
fn a_full_queue_hands_the_item_back() {
    let mut queue = Queue::new();
    for item in 0..MAX_QUEUED {
        queue.push(entry(1, Priority::Fill, 1), item).unwrap();
    }
    assert_eq!(queue.push(entry(1, Priority::High, 1), 7), Err(QueueFull(7)));
    pop_any(&mut queue).unwrap();
    assert!(queue.push(entry(1, Priority::High, 1), 7).is_ok());
}

#[test]
fn a_long_prompt_is_overtaken_only_so_often() {
    let mut queue = Queue::new();
    queue.push(entry(1, Priority::Low, 1), "long").unwrap();
    for n in 0..200 {
        queue.push(entry(n % 5, Priority::Low, 1), "short").unwrap();
    }
    queue.push(entry(1, Priority::Fill, 1), "fill").unwrap();
    let gate = |item: &&str, _| if *item == "long" { Verdict::PassOver } else { Verdict::Start };
    let overtakes = std::iter::from_fn(|| queue.pop_where(now(), gate)).count();
    assert!(overtakes >= MAX_PASSED_OVER as usize && overtakes <= 2 * MAX_PASSED_OVER as usize, "{overtakes}");
    assert_eq!(pop_any(&mut queue), Some("long"));
    assert_eq!(queue.pop_where(now(), gate).unwrap().item, "short");
}

#[test]
fn a_million_task_batch_does_not_starve_a_ten_task_one() {
    let mut queue = Queue::new();
    for _ in 0..10_000 {
        queue.push(entry(1, Priority::Low, cost_units(500, 250)), 1).unwrap();
    }
    for _ in 0..100 {
        pop_any(&mut queue).unwrap();
    }
    for _ in 0..10 {
        queue.push(entry(2, Priority::Low, cost_units(500, 250)), 2).unwrap();
    }
    let mut left = 10;
    let pops = std::iter::from_fn(|| pop_any(&mut queue))
        .take_while(|item| {
            left -= i32::from(*item == 2);
            left > 0
        })
        .count();
    assert!(pops <= 40, "the small batch was through after {pops} starts");
}

#[test]
fn who_sends_one_large_item_at_a_time_pays_for_it() {
    let mut queue = Queue::new();
    for _ in 0..4_000 {
        queue.push(entry(1, Priority::Low, 1_000), 1).unwrap();
    }
    queue.push(entry(2, Priority::Low, 100_000), 2).unwrap();
    let mut served = HashMap::from([(1, 0u64), (2, 0)]);
    for _ in 0..2_000 {
        let item = pop_any(&mut queue).unwrap();
        *served.get_mut(&item).unwrap() += if item == 2 { 100_000 } else { 1_000 };
        if item == 2 {
            queue.push(entry(2, Priority::Low, 100_000), 2).unwrap();
        }
    }
    assert!(served[&1].abs_diff(served[&2]) <= 100_000 + 2 * u64::from(QUANTUM), "{served:?}");
}

proptest! {
    /// Accounts that always wait get shares by weight, within two quanta and the costliest item.
    #[test]
    fn backlogged_accounts_share_by_weight(
        costs in prop::collection::vec((0u64..4, 1u64..40_000), 200..600),
        weights in prop::collection::vec(1u32..4, 4),
    ) {
        let mut queue = Queue::new();
        let costliest = costs.iter().map(|(_, cost)| *cost).max().unwrap_or(0);
        for (owner, cost) in costs {
            let weight = weights[owner as usize];
            queue.push(Entry { weight, ..entry(u128::from(owner), Priority::Fill, cost) }, (owner, cost)).unwrap();
        }
        let mut served = [0u64; 4];
        let mut waiting: HashMap<u64, usize> = HashMap::new();
        let mut items = Vec::new();
        while let Some(item) = pop_any(&mut queue) {
            *waiting.entry(item.0).or_default() += 1;
            items.push(item);
        }
        for (owner, cost) in items {
            served[owner as usize] += cost;
            let left = waiting.get_mut(&owner).unwrap();
            *left -= 1;
            if *left == 0 || waiting.len() < 4 {
                break;
            }
            for (a, b) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
                let (wa, wb) = (u64::from(weights[a]), u64::from(weights[b]));
                let bound = 2 * u64::from(QUANTUM) * wa * wb + costliest * wa.max(wb);
                prop_assert!((served[a] * wb).abs_diff(served[b] * wa) <= bound, "{served:?} {weights:?}");
            }
        }
    }

    /// Whatever is pushed, removed and refused, each item comes out once, and an open gate with a backlog starts one.
    #[test]
    fn every_item_leaves_once_and_an_open_gate_never_idles(
        steps in prop::collection::vec((0u8..4, 0u128..5, 0u8..3, 0u64..50_000), 1..400),
    ) {
        let (mut queue, mut places, mut present) = (Queue::new(), Vec::new(), std::collections::BTreeSet::new());
        for (step, (kind, owner, level, cost)) in steps.into_iter().enumerate() {
            let priority = [Priority::High, Priority::Low, Priority::Fill][level as usize];
            let at = now().after(Duration::from_secs(step as u64));
            match kind {
                0 | 1 => {
                    let latest_start = (cost % 3 == 0).then(|| at.after(Duration::from_secs(cost / 1_000)));
                    let place = queue.push(Entry { latest_start, ..entry(owner, priority, cost) }, step).unwrap();
                    places.push(place);
                    present.insert(step);
                }
                2 => {
                    let item = if places.is_empty() { None } else { queue.remove(places[cost as usize % places.len()]) };
                    prop_assert!(item.is_none_or(|item| present.remove(&item)));
                }
                _ => {
                    let popped = queue.pop_where(at, |item, class| {
                        if class == priority.class() { return Verdict::CloseClass }
                        if *item % 2 == 0 { Verdict::PassOver } else { Verdict::Start }
                    });
                    prop_assert!(popped.is_none_or(|popped| present.remove(&popped.item)));
                }
            }
            prop_assert_eq!(queue.len(), present.len());
            prop_assert_eq!(queue.len_per_class().iter().sum::<usize>(), present.len());
        }
        while !present.is_empty() {
            let item = pop_any(&mut queue).expect("the gate is open and work waits");
            prop_assert!(present.remove(&item));
        }
    }
}
