//! Holds: tiles: the addresses of pieces of the tree (C2SP tlog-tiles), which of them a proof needs, and proofs made of them.

use std::{collections::HashMap, fmt, str::FromStr};

use crate::{
    hash::{Hash, node_hash, root_of},
    words::number,
};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: usize = 256;
/// Levels that a tree of 2^63 leaves has.
const MAX_LEVEL: u8 = 63;
const WIDTH: u64 = TILE_WIDTH as u64;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of a level, 0 for leaves.
    Hashes(u8),
    /// Entries themselves.
    Entries,
}

/// A tile by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub kind: TileKind,
    /// Its place in its level.
    pub index: u64,
    /// How many hashes or entries it has, 1 to 256.
    pub width: u16,
}

/// A path is no tile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such tile")]
pub struct BadTile;

impl fmt::Display for Tile {
    /// The path behind `tile/`, such as `0/x001/x234/067.p/17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "{level}/")?,
            TileKind::Entries => f.write_str("entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if usize::from(self.width) < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for Tile {
    type Err = BadTile;

    fn from_str(path: &str) -> Result<Self, BadTile> {
        let (kind, rest) = path.split_once('/').ok_or(BadTile)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => {
                TileKind::Hashes(number(level).filter(|level| *level <= u64::from(MAX_LEVEL)).ok_or(BadTile)? as u8)
            }
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, number(width).filter(|width| (1..WIDTH).contains(width)).ok_or(BadTile)?),
            None => (rest, WIDTH),
        };
        let mut index: u64 = 0;
        let mut parts = groups.split('/').peekable();
        let mut is_first = true;
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let digits = if is_last { part } else { part.strip_prefix('x').ok_or(BadTile)? };
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(BadTile);
            }
            let group: u64 = digits.parse().map_err(|_| BadTile)?;
            // One address for each tile.
            if is_first && !is_last && group == 0 {
                return Err(BadTile);
            }
            index = index.checked_mul(1000).and_then(|index| index.checked_add(group)).ok_or(BadTile)?;
            is_first = false;
        }
        Ok(Self { kind, index, width: width as u16 })
    }
}

/// Tiles of a tree of some size, as far as they were fetched.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    size: u64,
    hashes: HashMap<(u8, u64), Vec<Hash>>,
}

impl Tiles {
    /// Of a tree of so many leaves; none is there yet.
    pub fn new(size: u64) -> Self {
        Self { size, hashes: HashMap::new() }
    }

    /// Puts a tile in.
    pub fn put(&mut self, level: u8, index: u64, hashes: Vec<Hash>) {
        self.hashes.insert((level, index), hashes);
    }

    /// The tile of that level that has the subtree's root or what it is made of, as wide as the tree makes it.
    fn holder(&self, level: u8, index: u64) -> Tile {
        let count = self.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let width = (count - index * WIDTH).min(WIDTH);
        Tile { kind: TileKind::Hashes(level), index, width: width as u16 }
    }

    /// What proving a leaf's inclusion needs, the lowest level first.
    pub fn of_inclusion(&self, index: u64) -> Vec<Tile> {
        let mut needed = Vec::new();
        self.path(index, &mut |start, end| self.needs((start, end), &mut needed));
        sorted(needed)
    }

    /// What proving that this tree begins with an older one needs.
    pub fn of_consistency(&self, old: u64) -> Vec<Tile> {
        let mut needed = Vec::new();
        self.older(old, &mut |start, end| self.needs((start, end), &mut needed));
        sorted(needed)
    }

    /// The proof that a leaf is in the tree, from its sibling up (RFC 6962, section 2.1.1); `None` where tiles are missing.
    pub fn inclusion(&self, index: u64) -> Option<Vec<Hash>> {
        let mut proof = Vec::new();
        self.path(index, &mut |start, end| proof.push(self.root_between(start, end)));
        if index < self.size { proof.into_iter().collect() } else { None }
    }

    /// The proof that the tree begins with an older one (RFC 6962, section 2.1.2); `None` where tiles are missing.
    pub fn consistency(&self, old: u64) -> Option<Vec<Hash>> {
        let mut proof = Vec::new();
        self.older(old, &mut |start, end| proof.push(self.root_between(start, end)));
        if old <= self.size { proof.into_iter().collect() } else { None }
    }

    /// The subtrees beside a leaf's way to the root, from the leaf up.
    fn path(&self, index: u64, visit: &mut impl FnMut(u64, u64)) {
        let (mut start, mut end) = (0, self.size);
        let mut beside = Vec::new();
        while index < self.size && end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                beside.push((middle, end));
                end = middle;
            } else {
                beside.push((start, middle));
                start = middle;
            }
        }
        beside.into_iter().rev().for_each(|(start, end)| visit(start, end));
    }

    /// The subtrees that a proof of consistency has, in its order.
    fn older(&self, old: u64, visit: &mut impl FnMut(u64, u64)) {
        if old == 0 || old >= self.size {
            return;
        }
        let (mut start, mut end, mut is_whole) = (0, self.size, true);
        let mut beside = Vec::new();
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                beside.push((middle, end));
                end = middle;
            } else {
                beside.push((start, middle));
                start = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            visit(start, end);
        }
        beside.into_iter().rev().for_each(|(start, end)| visit(start, end));
    }

    fn needs(&self, (start, end): (u64, u64), needed: &mut Vec<Tile>) {
        for (height, start) in subtrees(start, end) {
            let (level, place) = place_of(height, start);
            needed.push(self.holder(level, place / WIDTH));
        }
    }

    fn root_between(&self, start: u64, end: u64) -> Option<Hash> {
        let mut root: Option<Hash> = None;
        for (height, start) in subtrees(start, end).into_iter().rev() {
            let (level, place) = place_of(height, start);
            let tile = self.hashes.get(&(level, place / WIDTH))?;
            let from = (place % WIDTH) as usize;
            let left = root_of(tile.get(from..from + (1 << (height % 8)))?);
            root = Some(root.map_or(left, |right| node_hash(&left, &right)));
        }
        root
    }
}

/// The largest power of two below the size.
const fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// A range that begins where a subtree does, as full subtrees: their heights and first leaves, the largest first.
fn subtrees(mut start: u64, end: u64) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    while start < end {
        let height = (end - start).ilog2();
        found.push((height, start));
        start += 1 << height;
    }
    found
}

/// The level and the place in it of a full subtree's first hash.
const fn place_of(height: u32, start: u64) -> (u8, u64) {
    let level = height / 8;
    (level as u8, start >> (8 * level))
}

fn sorted(mut tiles: Vec<Tile>) -> Vec<Tile> {
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}
