//! Holds: a log's right edge: what appending needs to know of everything before.

use crate::{
    hash::{Hash, node_hash, root_of},
    tile::TILE_WIDTH,
};

/// A tile that has become full: its hashes never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    /// 0 for leaves.
    pub level: u8,
    /// Its place in the level.
    pub index: u64,
    /// All 256 hashes.
    pub hashes: Vec<Hash>,
}

/// The tiles at the right edge of a tree, one for each level, none of them full.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Of a tree of so many leaves, from its partial tiles by level; `None` where their widths are not those of the tree.
    pub fn new(size: u64, mut levels: Vec<Vec<Hash>>) -> Option<Self> {
        while levels.last().is_some_and(Vec::is_empty) {
            levels.pop();
        }
        let wanted = |level: usize| widths(size).nth(level).unwrap_or(0);
        let count = widths(size).count().max(levels.len());
        let fits = (0..count).all(|level| levels.get(level).map_or(0, Vec::len) as u64 == wanted(level));
        fits.then_some(Self { size, levels })
    }

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The partial tiles by level; empty where a level has only full ones.
    pub fn levels(&self) -> &[Vec<Hash>] {
        &self.levels
    }

    /// One leaf more; the tiles that became full with it.
    pub fn append(&mut self, leaf: Hash) -> Vec<FullTile> {
        let mut full = Vec::new();
        let (mut hash, mut count) = (leaf, self.size);
        self.size += 1;
        for level in 0_u8.. {
            let place = usize::from(level);
            if self.levels.len() == place {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let tile = &mut self.levels[place];
            tile.push(hash);
            if tile.len() < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(tile);
            hash = root_of(&hashes);
            let index = count / TILE_WIDTH as u64;
            full.push(FullTile { level, index, hashes });
            count = index;
        }
        full
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        for tile in &self.levels {
            let mut end = tile.len();
            while end > 0 {
                // The largest full subtree that ends here.
                let start = end & (end - 1);
                let left = root_of(&tile[start..end]);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                end = start;
            }
        }
        root.unwrap_or_else(|| Hash::of(&[]))
    }
}

/// The widths of the partial tiles of a tree, by level.
fn widths(size: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(size), |size| Some(size / TILE_WIDTH as u64))
        .take_while(|size| *size > 0)
        .map(|size| size % TILE_WIDTH as u64)
}
