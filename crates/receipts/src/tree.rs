//! Holds: checking proofs of the log's tree (RFC 9162, sections 2.1.3.2 and 2.1.4.2).

use crate::hash::{Hash, node_hash};

/// A proof does not prove what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the root")]
pub struct Unproven;

/// Whether a leaf stands at `index` in the tree of `size` leaves with this root.
pub fn verify_inclusion((index, size): (u64, u64), leaf: &Hash, proof: &[Hash], root: &Hash) -> Result<(), Unproven> {
    if index >= size {
        return Err(Unproven);
    }
    let (mut place, mut last, mut reached) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(Unproven);
        }
        if place % 2 == 1 || place == last {
            reached = node_hash(sibling, &reached);
            while place.is_multiple_of(2) && place != 0 {
                (place, last) = (place / 2, last / 2);
            }
        } else {
            reached = node_hash(&reached, sibling);
        }
        (place, last) = (place / 2, last / 2);
    }
    if last == 0 && reached == *root { Ok(()) } else { Err(Unproven) }
}

/// Whether the tree of `new` leaves begins with all leaves of the tree of `old`.
pub fn verify_consistency(
    (old, new): (u64, u64),
    (old_root, new_root): (&Hash, &Hash),
    proof: &[Hash],
) -> Result<(), Unproven> {
    let proven = |is_so: bool| if is_so { Ok(()) } else { Err(Unproven) };
    if old > new {
        return Err(Unproven);
    }
    if old == new {
        return proven(proof.is_empty() && old_root == new_root);
    }
    if old == 0 {
        // Everything begins with nothing.
        return proven(proof.is_empty());
    }
    let (first, rest) = match proof.split_first() {
        _ if old.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return Err(Unproven),
    };
    let (mut place, mut last) = (old - 1, new - 1);
    while place % 2 == 1 {
        (place, last) = (place / 2, last / 2);
    }
    let (mut of_old, mut of_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(Unproven);
        }
        if place % 2 == 1 || place == last {
            of_old = node_hash(sibling, &of_old);
            of_new = node_hash(sibling, &of_new);
            while place.is_multiple_of(2) && place != 0 {
                (place, last) = (place / 2, last / 2);
            }
        } else {
            of_new = node_hash(&of_new, sibling);
        }
        (place, last) = (place / 2, last / 2);
    }
    proven(last == 0 && of_old == *old_root && of_new == *new_root)
}
