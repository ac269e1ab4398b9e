//! Holds: what is remembered of a chain between two scans, and how it is stored.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    hash::Hash,
    header::{BlockRef, Header},
};

/// The form in which it is stored.
const VERSION: u32 = 1;
/// How often a block is read after the first time.
pub(crate) const AGAIN: usize = 2;
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
    /// Up to where blocks were read again, for each time that they are: from `first` to `read_to`.
    again: [u64; AGAIN],
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
    /// Not there where nothing was read again when it was stored.
    again: Option<[u64; AGAIN]>,
}

impl State {
    /// Begins behind this block, which counts as read.
    pub fn at(chain_id: u64, block: &Header) -> Self {
        let hashes = VecDeque::from([block.hash]);
        Self { chain_id, first: block.number, hashes, read_to: block.number, again: [block.number; AGAIN] }
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
        let number = self.end().saturating_sub(1);
        let hash = self.hashes.back().copied().unwrap_or(Hash::from_bytes([0; 32]));
        BlockRef { number, hash }
    }

    /// Has the last blocks read again, as far as they are remembered. What they bring comes under the keys that it had.
    #[must_use]
    pub fn rewound(mut self, blocks: u32) -> Self {
        self.read_to = self.read_to.saturating_sub(u64::from(blocks)).max(self.first);
        self.bound_again();
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
        self.first.saturating_add(self.hashes.len() as u64)
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
        self.bound_again();
        cut
    }

    /// Up to where blocks were read again, the n-th time from 0.
    pub(crate) fn again(&self, time: usize) -> u64 {
        self.again.get(time).copied().unwrap_or(self.read_to)
    }

    pub(crate) fn mark_again(&mut self, time: usize, number: u64) {
        if let Some(read_to) = self.again.get_mut(time) {
            *read_to = number.max(*read_to);
        }
        self.bound_again();
    }

    fn bound_again(&mut self) {
        self.again = self.again.map(|number| number.clamp(self.first, self.read_to));
    }

    pub(crate) fn mark_read(&mut self, number: u64) {
        self.read_to = self.read_to.max(number);
    }

    /// Forgets the oldest above so many, but none that is still to be read behind, also again.
    pub(crate) fn trim(&mut self, window: u32) {
        let read_to = self.again.into_iter().fold(self.read_to, u64::min);
        while self.hashes.len() > window as usize && self.first < read_to {
            self.hashes.pop_front();
            self.first = self.first.saturating_add(1);
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
        let State { chain_id, first, read_to, again, .. } = state;
        Self { version: VERSION, chain_id, first, read_to, hashes, again: Some(again) }
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
        let Stored { chain_id, first, read_to, .. } = stored;
        let mut state = Self { chain_id, first, hashes, read_to, again: stored.again.unwrap_or([first; AGAIN]) };
        state.bound_again();
        Ok(state)
    }
}
