//! Holds: what is known of blocks: which one, after which one, and how far a chain has come.

use crate::hash::Hash;

/// A block, beyond doubt: two forks have two blocks of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What links a block to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its height.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
    /// The hash of the block before.
    pub parent: Hash,
}

impl Header {
    /// Which block it is.
    pub fn block(&self) -> BlockRef {
        BlockRef { number: self.number, hash: self.hash }
    }
}

/// How far a chain has come, as one endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The newest block.
    pub latest: Header,
    /// The newest block that the chain calls `safe`; none where it has no such tag.
    pub safe: Option<BlockRef>,
    /// The newest block that the chain calls `finalized`; none where it has no such tag.
    pub finalized: Option<BlockRef>,
}
