//! Holds: following a chain from block to block. Pure: no endpoint, no clock, no store.

use crate::{
    header::{BlockRef, Header},
    rpc::Log,
    state::State,
    transfer::{Seen, Skipped, transfers},
    watch::Watch,
};

/// What happened on the chain, in the order in which it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block is no longer of the chain, and nothing that was seen in it counts. What was seen under the same key in
    /// another block stays.
    Orphaned(BlockRef),
    /// A transfer is in the chain. It may have been told before, in this block or in one that was orphaned: the key is the
    /// same, and block, log index and, in theory, value and payer are the newer ones.
    Seen(Seen),
}

/// A block does not follow the tip: the chain has another fork, or the endpoint lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block does not follow the last one")]
pub struct Unlinked;

/// The chain has left what is remembered of it. Nothing is decided by itself then: whoever operates this must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the chain {chain_id} was reorganised below block {below}, deeper than is followed: payments of these blocks must be checked by hand"
)]
pub struct DeepReorg {
    /// The chain.
    pub chain_id: u64,
    /// The oldest remembered block, which is of the chain no more.
    pub below: u64,
}

/// Follows one chain. Headers come first, each after the one before; then what their blocks hold, in the same order.
#[derive(Clone, Debug)]
pub struct Follower {
    state: State,
    window: u32,
    skipped: Skipped,
}

impl Follower {
    /// Goes on from a state, remembering so many blocks.
    pub fn new(state: State, window: u32) -> Self {
        Self { state, window, skipped: Skipped::default() }
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is to be stored, and what was passed over.
    pub fn finish(mut self) -> (State, Skipped) {
        self.state.trim(self.window);
        (self.state, self.skipped)
    }

    /// One block more. Nothing of it is read yet.
    pub fn follow(&mut self, header: &Header) -> Result<(), Unlinked> {
        let tip = self.state.tip();
        if tip.number.checked_add(1) != Some(header.number) || tip.hash != header.parent {
            return Err(Unlinked);
        }
        self.state.push(header.hash);
        Ok(())
    }

    /// The chain goes on from an older block: what stood above it is orphaned, newest first.
    pub fn fork(&mut self, ancestor: BlockRef) -> Result<Vec<Event>, DeepReorg> {
        if self.state.hash_at(ancestor.number) != Some(ancestor.hash) {
            return Err(DeepReorg { chain_id: self.state.chain_id(), below: self.state.first() });
        }
        Ok(self.state.cut_above(ancestor.number).into_iter().map(Event::Orphaned).collect())
    }

    /// The next block that is followed and not read.
    pub fn unread(&self) -> Option<BlockRef> {
        let number = self.state.read_to().checked_add(1)?;
        Some(BlockRef { number, hash: self.state.hash_at(number)? })
    }

    /// Reads the [`unread`](Self::unread) block's logs, which are in their order and of this block alone.
    pub fn read(&mut self, watch: &Watch, logs: &[Log]) -> Vec<Event> {
        let Some(block) = self.unread() else { return Vec::new() };
        self.state.mark_read(block.number);
        self.told(watch, logs)
    }

    /// What blocks that were read before hold after all: those up to this number, the n-th time from 0 that they are read again.
    pub(crate) fn again(&mut self, watch: &Watch, time: usize, to: u64, logs: &[Log]) -> Vec<Event> {
        self.state.mark_again(time, to);
        // What is no payment was counted the first time.
        let (seen, _) = transfers(watch, logs);
        seen.into_iter().map(Event::Seen).collect()
    }

    /// Reads all from the first unread block to this one, which is too far from the chain's end to go, and follows the
    /// chain from there on.
    pub fn leap(&mut self, watch: &Watch, to: &Header, logs: &[Log]) -> Vec<Event> {
        self.state = State::at(self.state.chain_id(), to);
        self.told(watch, logs)
    }

    fn told(&mut self, watch: &Watch, logs: &[Log]) -> Vec<Event> {
        let (seen, skipped) = transfers(watch, logs);
        self.skipped.add(skipped);
        seen.into_iter().map(Event::Seen).collect()
    }
}

#[cfg(test)]
mod tests;
