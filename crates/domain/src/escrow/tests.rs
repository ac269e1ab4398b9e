use proptest::prelude::*;

use super::*;
use crate::{Amount, ledger::Counters};

fn amount(nanos: i64) -> Amount {
    Amount::from_nanos(nanos).unwrap()
}

fn quantity(units: i64) -> Quantity {
    Quantity::from_units(units).unwrap()
}

#[test]
fn a_grant_covers_the_request_and_leaves_others_their_share() {
    assert_eq!(grant_size(quantity(10), quantity(1_000), quantity(10_000), 1), quantity(1_000));
    assert_eq!(grant_size(quantity(10), quantity(100_000), quantity(10_000), 1), quantity(5_000));
    assert_eq!(grant_size(quantity(10), quantity(100_000), quantity(10_000), 5), quantity(1_000));
    assert_eq!(grant_size(quantity(9_000), quantity(0), quantity(10_000), 5), quantity(9_000));
    assert_eq!(grant_size(quantity(11_000), quantity(0), quantity(10_000), 5), quantity(10_000));
}

proptest! {
    /// Whatever the order of holds, settlements and returns, nothing appears and nothing vanishes.
    #[test]
    fn a_lease_conserves_what_was_granted(steps in prop::collection::vec((0u8..4, 0i64..500, 0i64..500), 0..200)) {
        let (mut lease, mut granted, mut gone) = (Lease::default(), 0i64, 0i64);
        let mut holds: Vec<i64> = Vec::new();
        for (kind, a, b) in steps {
            match kind {
                0 => { lease.grant(quantity(a)); granted += a }
                1 => if lease.hold(quantity(a)).is_ok() { holds.push(a) } else { prop_assert!(lease.free() < quantity(a)) },
                2 => if let Some(held) = holds.pop() {
                    let used = b.min(held);
                    lease.settle(quantity(held), quantity(b));
                    gone += used;
                },
                _ => gone += lease.release(quantity(a)).units(),
            }
            prop_assert_eq!(lease.free.units() + lease.held.units(), granted - gone);
            prop_assert!(lease.free >= Quantity::ZERO && lease.held >= Quantity::ZERO);
        }
    }
}

/// A store and nodes that stall at random, stepped in milliseconds. The store's rules are the real ones.
struct World {
    now: i64,
    store: Counters,
    nodes: Vec<Node>,
    charged: i64,
    delivered: i64,
    unbilled: i64,
}

#[derive(Clone)]
struct Node {
    epoch: u32,
    stored_epoch: u32,
    expires_at: i64,
    stored_outstanding: i64,
    fence: Fence,
    lease: Lease,
    stalled_until: i64,
    running: Vec<(i64, i64)>,
}

const LEASE_MS: i64 = 400;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis * 1_000)
}

impl World {
    fn new(funded: i64) -> Self {
        let node = Node {
            epoch: 1,
            stored_epoch: 1,
            expires_at: LEASE_MS,
            stored_outstanding: 0,
            fence: Fence::new(at(0), Duration::from_millis(400)),
            lease: Lease::default(),
            stalled_until: 0,
            running: Vec::new(),
        };
        let store = Counters::default().credit(amount(funded)).unwrap();
        Self { now: 0, store, nodes: vec![node; 4], charged: 0, delivered: 0, unbilled: 0 }
    }

    /// One node acts: renews, rejoins when fenced, finishes what is due, starts one more request.
    fn act(&mut self, i: usize, cost: i64, stall: Option<i64>) {
        let (now, funded_by_store) = (self.now, self.store.available());
        let node = &mut self.nodes[i];
        // The node asks; a stall may lie between the asking and the store's answer.
        let asked = now;
        if let Some(stall) = stall {
            node.stalled_until = now + stall;
        }
        if node.epoch != node.stored_epoch || !node.fence.holds_at(at(now)) {
            // Fenced: what runs is abandoned undelivered, and the node joins again under a new epoch.
            self.store = self.store.void(amount(node.stored_outstanding)).unwrap();
            let stalled_until = node.stalled_until;
            let epoch = node.stored_epoch + 1;
            *node = Node {
                epoch,
                stored_epoch: epoch,
                expires_at: now + LEASE_MS,
                stored_outstanding: 0,
                fence: Fence::new(at(asked), Duration::from_millis(400)),
                lease: Lease::default(),
                stalled_until,
                running: Vec::new(),
            };
            return;
        }
        node.expires_at = now + LEASE_MS;
        node.fence = Fence::new(at(asked), Duration::from_millis(400));
        let due: Vec<_> = node.running.extract_if(.., |(end, _)| *end <= now).collect();
        for (_, held) in due {
            let used = held / 2 + 1;
            node.lease.settle(quantity(held), quantity(used));
            match self.store.post(amount(used.min(held))) {
                Ok(next) if node.epoch == node.stored_epoch => {
                    self.store = next;
                    node.stored_outstanding -= used.min(held);
                    self.charged += used.min(held);
                    self.delivered += used.min(held);
                }
                _ => self.unbilled += used,
            }
        }
        if node.lease.hold(quantity(cost)).is_err() {
            let size = grant_size(quantity(cost), quantity(cost * 4), funded_by_store.into(), 4);
            if size >= quantity(cost)
                && let Ok(next) = self.store.pend(size.money())
            {
                self.store = next;
                node.stored_outstanding += size.units();
                node.lease.grant(size);
                node.lease.hold(quantity(cost)).unwrap();
            } else {
                let back = node.lease.release(Quantity::MAX);
                self.store = self.store.void(back.money()).unwrap();
                node.stored_outstanding -= back.units();
                return;
            }
        }
        node.running.push((now + 50, cost));
    }

    /// The store takes back what belongs to nodes that stayed away.
    fn reclaim(&mut self) {
        for node in &mut self.nodes {
            let due = may_reclaim(at(node.expires_at), at(self.now), Duration::from_millis(200));
            if due && node.stored_outstanding > 0 {
                node.stored_epoch += 1;
                self.store = self.store.void(amount(node.stored_outstanding)).unwrap();
                node.stored_outstanding = 0;
            }
        }
    }
}

#[test]
fn four_stalling_nodes_serve_exactly_what_was_funded() {
    const FUNDED: i64 = 3_000;
    for seed in 0..400u64 {
        let mut world = World::new(FUNDED);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound) as i64
        };
        for _ in 0..40_000 {
            world.now += next(10);
            let i = next(4) as usize;
            world.reclaim();
            if world.nodes[i].stalled_until <= world.now {
                let stall = (next(200) == 0).then(|| next(1_500));
                world.act(i, 1 + next(12), stall);
            }
            assert!(world.store.is_sound(), "seed {seed}: {:?}", world.store);
            assert!(world.charged <= FUNDED && world.unbilled == 0, "seed {seed}");
        }
        // Everything fundable was served: what is left cannot pay the smallest request.
        assert_eq!(world.delivered, world.charged);
        assert!(FUNDED - world.charged <= 12, "seed {seed}: {} left", FUNDED - world.charged);
    }
}
