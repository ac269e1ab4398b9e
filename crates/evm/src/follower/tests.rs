use std::collections::HashSet;

use super::*;
use crate::{chain::BASE, hash::Hash, state::AGAIN};

const WINDOW: u32 = 8;

fn hash(number: u64, fork: u8) -> Hash {
    let mut bytes = [fork; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Hash::from_bytes(bytes)
}

fn header(number: u64, fork: u8, parent: u8) -> Header {
    Header { number, hash: hash(number, fork), parent: hash(number.wrapping_sub(1), parent) }
}

fn follower(blocks: u64) -> (Follower, Watch) {
    let watch = Watch::new(&BASE, HashSet::new());
    let mut follower = Follower::new(State::at(BASE.id, &header(0, 0, 0)), WINDOW);
    for number in 1..=blocks {
        follower.follow(&header(number, 0, 0)).unwrap();
        assert_eq!(follower.read(&watch, &[]), []);
        for time in 0..AGAIN {
            assert_eq!(follower.again(&watch, time, number, &[]), []);
        }
    }
    (follower, watch)
}

#[test]
fn only_the_next_block_follows() {
    let (mut follower, _) = follower(3);
    for wrong in [header(3, 0, 0), header(5, 0, 0), header(4, 1, 1)] {
        assert_eq!(follower.follow(&wrong), Err(Unlinked), "{wrong:?}");
    }
    assert_eq!(follower.follow(&header(4, 1, 0)), Ok(()));
    assert_eq!((follower.state().tip().number, follower.state().read_to()), (4, 3));
}

#[test]
fn a_fork_orphans_what_stood_above_it_and_reads_it_anew() {
    let (mut follower, watch) = follower(5);
    let ancestor = header(3, 0, 0).block();
    let orphaned = [5, 4].map(|number| Event::Orphaned(header(number, 0, 0).block()));
    assert_eq!(follower.fork(ancestor).unwrap(), orphaned);
    follower.follow(&header(4, 1, 0)).unwrap();
    assert_eq!(follower.unread(), Some(header(4, 1, 0).block()));
    follower.read(&watch, &[]);
    assert_eq!(follower.unread(), None);
    // The block that went is no ancestor.
    assert!(follower.fork(header(4, 0, 0).block()).is_err());
}

#[test]
fn what_is_remembered_is_bounded_and_a_deeper_fork_is_an_alarm() {
    let (follower, _) = follower(20);
    let (state, _) = follower.finish();
    assert_eq!((state.hash_at(12), state.hash_at(13)), (None, Some(hash(13, 0))));
    let mut follower = Follower::new(state, WINDOW);
    let error = follower.fork(header(12, 0, 0).block()).unwrap_err();
    assert_eq!(error, DeepReorg { chain_id: BASE.id, below: 13 });
    // Nothing is forgotten that is still to be read again.
    let state = follower.finish().0.rewound(100);
    assert_eq!((state.read_to(), state.tip().number), (13, 20));
}

#[test]
fn a_state_is_stored_whole_or_refused() {
    let state = follower(20).0.finish().0.rewound(2);
    let stored = serde_json::to_value(&state).unwrap();
    assert_eq!(serde_json::from_value::<State>(stored.clone()).unwrap(), state);
    // As one was stored before blocks were read again: all that is remembered is.
    let mut older = stored.clone();
    older.as_object_mut().unwrap().remove("again");
    let older: State = serde_json::from_value(older).unwrap();
    assert_eq!((older.again(0), older.read_to()), (older.first(), state.read_to()));
    for (member, value) in [
        ("version", serde_json::json!(2)),
        ("read_to", serde_json::json!(12)),
        ("read_to", serde_json::json!(21)),
        ("first", serde_json::json!(u64::MAX)),
        ("hashes", serde_json::json!("")),
        ("hashes", serde_json::json!("00")),
    ] {
        let mut damaged = stored.clone();
        damaged[member] = value;
        assert!(serde_json::from_value::<State>(damaged.clone()).is_err(), "{damaged}");
    }
}
