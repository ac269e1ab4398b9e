//! Holds: what is remembered of a chain between two scans, and how it is stored.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    hash::Hash,
    header::{BlockRef, Header},
};

/// The form in which it is stored.
const VERSION: u32 = 1;
const HASH_DIGITS: usize = 64;

/// The newest blocks that were followed, each the one after the one before, and how far their payments were read. Stored by serde
/// (as JSON, some 65 bytes a block), in the transaction that stores what was seen.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct State {
    chain_id: u64,
    /// The number of the first hash.
    first: u64,
    /// Never empty.
    hashes: VecDeque<Hash>,
    /// From `first` to the tip.
    read_to: u64,
}

/// What was stored is no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A newer program wrote it.
    #[error("the chain's state was stored by another version")]
    Version,
    /// It contradicts itself.
    #[error("the chain's stored state is damaged")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    chain_id: u64,
    first: u64,
    read_to: u64,
    hashes: String,
}

impl State {
    /// Begins behind this block, which counts as read.
    pub fn at(chain_id: u64, block: &Header) -> Self {
        Self { chain_id, first: block.number, hashes: VecDeque::from([block.hash]), read_to: block.number }
    }

    /// The chain that it is of.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The newest block whose payments were read.
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// The newest block that was followed.
    pub fn tip(&self) -> BlockRef {
        let number = self.end() - 1;
        let hash = self.hashes.back().copied().unwrap_or(Hash::from_bytes([0; 32]));
        BlockRef { number, hash }
    }

    /// Has the last blocks read again, as far as they are remembered. What they bring comes under the keys that it had.
    #[must_use]
    pub fn rewound(mut self, blocks: u32) -> Self {
        self.read_to = self.read_to.saturating_sub(u64::from(blocks)).max(self.first);
        self
    }

    /// The hash of a remembered block.
    pub fn hash_at(&self, number: u64) -> Option<Hash> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.hashes.get(index).copied()
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number after the tip's.
    fn end(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    pub(crate) fn push(&mut self, hash: Hash) {
        self.hashes.push_back(hash);
    }

    /// Forgets all above a remembered block, and says what.
    pub(crate) fn cut_above(&mut self, ancestor: u64) -> Vec<BlockRef> {
        let mut cut = Vec::new();
        while self.tip().number > ancestor && self.hashes.len() > 1 {
            cut.push(self.tip());
            self.hashes.pop_back();
        }
        self.read_to = self.read_to.min(self.tip().number);
        cut
    }

    pub(crate) fn mark_read(&mut self, number: u64) {
        self.read_to = self.read_to.max(number);
    }

    /// Forgets the oldest above so many, but none that is still to be read behind.
    pub(crate) fn trim(&mut self, window: u32) {
        while self.hashes.len() > window as usize && self.first < self.read_to {
            self.hashes.pop_front();
            self.first += 1;
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read_to, tip) = (self.read_to, self.tip());
        f.debug_struct("State")
            .field("first", &self.first)
            .field("read_to", &read_to)
            .field("tip", &tip)
            .finish_non_exhaustive()
    }
}

impl From<State> for Stored {
    fn from(state: State) -> Self {
        let hashes = state.hashes.iter().map(|hash| hex::encode(hash.as_bytes())).collect();
        Self { version: VERSION, chain_id: state.chain_id, first: state.first, read_to: state.read_to, hashes }
    }
}

impl TryFrom<Stored> for State {
    type Error = StateError;

    fn try_from(stored: Stored) -> Result<Self, StateError> {
        if stored.version != VERSION {
            return Err(StateError::Version);
        }
        let bytes = hex::decode(&stored.hashes).map_err(|_| StateError::Damaged)?;
        let (hashes, rest) = bytes.as_chunks();
        let hashes: VecDeque<_> = hashes.iter().copied().map(Hash::from_bytes).collect();
        let count = (stored.hashes.len() / HASH_DIGITS) as u64;
        let end = stored.first.checked_add(count).ok_or(StateError::Damaged)?;
        let is_whole = rest.is_empty() && (stored.first..end).contains(&stored.read_to);
        if !is_whole {
            return Err(StateError::Damaged);
        }
        Ok(Self { chain_id: stored.chain_id, first: stored.first, hashes, read_to: stored.read_to })
    }
}
