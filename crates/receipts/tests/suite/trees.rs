//! Holds: appending, proofs and their checking, against the definitions of RFC 6962 written down as they stand.

use std::collections::HashMap;

use batchin_receipts::{
    Edge, Hash, TILE_WIDTH, Tile, TileKind, Tiles, leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|number| leaf_hash(format!("entry {number}").as_bytes())).collect()
}

fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// MTH of RFC 6962, section 2.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(&[]),
        [leaf] => *leaf,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// PATH of section 2.1.1.
fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut way, beside) = match index.checked_sub(left.len()) {
        None => (path(index, left), root(right)),
        Some(index) => (path(index, right), root(left)),
    };
    way.push(beside);
    way
}

/// SUBPROOF of section 2.1.2.
fn subproof(old: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if is_whole { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, beside) = match old.checked_sub(left.len()).filter(|rest| *rest > 0) {
        None => (subproof(old, left, is_whole), root(right)),
        Some(rest) => (subproof(rest, right, false), root(left)),
    };
    proof.push(beside);
    proof
}

/// A log: its edge, and every tile as it was published.
#[derive(Default)]
struct Log {
    edge: Edge,
    full: HashMap<(u8, u64), Vec<Hash>>,
}

impl Log {
    fn of(leaves: &[Hash]) -> Self {
        let mut log = Self::default();
        for leaf in leaves {
            for tile in log.edge.append(*leaf) {
                assert!(log.full.insert((tile.level, tile.index), tile.hashes).is_none());
            }
        }
        log
    }

    fn tile(&self, tile: &Tile) -> Vec<Hash> {
        let TileKind::Hashes(level) = tile.kind else { panic!("{tile} has no hashes") };
        let hashes = match self.full.get(&(level, tile.index)) {
            Some(hashes) => hashes,
            None => &self.edge.levels()[usize::from(level)],
        };
        // A tile of a smaller tree is the beginning of what it has become.
        hashes[..usize::from(tile.width)].to_vec()
    }

    fn fetched(&self, size: u64, needed: impl Fn(&Tiles) -> Vec<Tile>) -> Tiles {
        let mut tiles = Tiles::new(size);
        for tile in needed(&tiles) {
            let TileKind::Hashes(level) = tile.kind else { panic!("{tile} has no hashes") };
            tiles.put(level, tile.index, self.tile(&tile));
        }
        tiles
    }
}

#[test]
fn roots_and_proofs_are_those_of_the_rfc() {
    let leaves = leaves(530);
    let log = Log::of(&leaves);
    assert_eq!(log.edge.root(), root(&leaves));
    for size in [0, 1, 2, 3, 7, 8, 255, 256, 257, 300, 511, 512, 513, 530] {
        let of_size = &leaves[..size];
        assert_eq!(Log::of(of_size).edge.root(), root(of_size), "{size}");
        for index in (0..size).step_by(7).chain(size.checked_sub(1)) {
            let (index, proof) = (index as u64, path(index, of_size));
            let tiles = log.fetched(size as u64, |tiles| tiles.of_inclusion(index));
            assert_eq!(tiles.inclusion(index), Some(proof.clone()), "{index} of {size}");
            let leaf = &leaves[index as usize];
            let found = verify_inclusion((index, size as u64), leaf, &proof, &root(of_size));
            assert_eq!(found, Ok(()), "{index} of {size}");
        }
        for old in (0..=size).step_by(5).chain([size]) {
            let proof = if old == 0 { Vec::new() } else { subproof(old, of_size, true) };
            let tiles = log.fetched(size as u64, |tiles| tiles.of_consistency(old as u64));
            assert_eq!(tiles.consistency(old as u64), Some(proof.clone()), "{old} to {size}");
            let roots = (&root(&leaves[..old]), &root(of_size));
            assert_eq!(verify_consistency((old as u64, size as u64), roots, &proof), Ok(()), "{old} to {size}");
        }
    }
}

#[test]
fn a_proof_of_anything_else_proves_nothing() {
    let mut rng = StdRng::seed_from_u64(16);
    let leaves = leaves(300);
    for _ in 0..2_000 {
        let size = rng.random_range(2..=leaves.len());
        let of_size = &leaves[..size];
        let (index, old) = (rng.random_range(0..size), rng.random_range(1..size));
        let (place, whole) = (index as u64, size as u64);
        let (leaf, top) = (&leaves[index], root(of_size));
        let proof = path(index, of_size);
        let other = leaf_hash(b"other");
        assert!(verify_inclusion((place, whole), &other, &proof, &top).is_err());
        assert!(verify_inclusion((place, whole), leaf, &proof, &other).is_err());
        assert!(verify_inclusion(((place + 1) % whole, whole), leaf, &proof, &top).is_err());
        assert!(verify_inclusion((whole, whole), leaf, &proof, &top).is_err());
        assert!(verify_inclusion((place, whole), leaf, &proof[1..], &top).is_err());
        assert!(verify_inclusion((place, whole), leaf, &[&proof[..], &[other]].concat(), &top).is_err());
        let mut bent = proof.clone();
        bent[rng.random_range(0..proof.len())] = other;
        assert!(verify_inclusion((place, whole), leaf, &bent, &top).is_err());

        let (before, sizes) = (root(&leaves[..old]), (old as u64, whole));
        let proof = subproof(old, of_size, true);
        assert!(verify_consistency(sizes, (&other, &top), &proof).is_err());
        assert!(verify_consistency(sizes, (&before, &other), &proof).is_err());
        assert!(verify_consistency(sizes, (&before, &top), &proof[1..]).is_err());
        assert!(verify_consistency(sizes, (&before, &top), &[&proof[..], &[other]].concat()).is_err());
        assert!(verify_consistency((whole, old as u64), (&top, &before), &proof).is_err());
        let mut bent = proof.clone();
        bent[rng.random_range(0..proof.len())] = other;
        assert!(verify_consistency(sizes, (&before, &top), &bent).is_err());
    }
}

#[test]
fn an_edge_is_that_of_its_size_or_none() {
    let leaves = leaves(70_000);
    let log = Log::of(&leaves);
    let widths: Vec<_> = log.edge.levels().iter().map(Vec::len).collect();
    // The example of tlog-tiles.
    assert_eq!((widths, log.full.len()), (vec![112, 17, 1], 274));
    let again = Edge::new(log.edge.size(), log.edge.levels().to_vec()).unwrap();
    assert_eq!(again.root(), root(&leaves));
    assert_eq!(Edge::new(69_999, log.edge.levels().to_vec()), None);
    assert_eq!(Edge::new(70_000, log.edge.levels()[..2].to_vec()), None);
    assert_eq!(Edge::new(0, Vec::new()).map(|edge| edge.root()), Some(Hash::of(&[])));
    let index = 12_345;
    let tiles = log.fetched(70_000, |tiles| tiles.of_inclusion(index));
    let proof = tiles.inclusion(index).unwrap();
    assert_eq!(verify_inclusion((index, 70_000), &leaves[12_345], &proof, &log.edge.root()), Ok(()));
    assert_eq!(Tiles::new(70_000).inclusion(index), None, "nothing was fetched");
}

#[test]
fn a_tile_has_one_address() {
    for (path, kind, index, width) in [
        ("0/000", TileKind::Hashes(0), 0, TILE_WIDTH),
        ("0/x001/x234/067", TileKind::Hashes(0), 1_234_067, TILE_WIDTH),
        ("63/999.p/255", TileKind::Hashes(63), 999, 255),
        ("entries/x001/000.p/1", TileKind::Entries, 1_000, 1),
    ] {
        let tile = Tile { kind, index, width: u16::try_from(width).unwrap() };
        assert_eq!((path.parse(), tile.to_string()), (Ok(tile), path.to_owned()));
    }
    for wrong in [
        "",
        "0",
        "0/",
        "/000",
        "0/0",
        "0/0000",
        "00/000",
        "64/000",
        "-1/000",
        "0/x000/001",
        "0/x001",
        "0/001/002",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/",
        "0/000.p/1/2",
        "data/000",
        "0/+01",
        "0/x001/x002",
        "entries/000/",
        "0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(wrong.parse::<Tile>().is_err(), "{wrong}");
    }
}
