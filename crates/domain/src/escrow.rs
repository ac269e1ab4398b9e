//! Holds: the rules by which a node spends what it has leased.
//!
//! A node leases part of a purse from the store, sets money aside for each request in memory, and settles what was
//! really used. Four timing rules keep this exact when nodes stall or die:
//!
//! 1. the node's clock for its lease starts when it *asked*, the store's when it *granted*: the node ends first;
//! 2. the store takes leases back only some time after the lease's end ([`may_reclaim`]): more than a group commit that
//!    was under way then can take;
//! 3. a node past its deadline sends no further byte and settles nothing ([`Fence`]), and the store refuses
//!    settlements of an epoch that it has ended;
//! 4. usage of long streams is flushed as it grows, not only at the end.

use std::time::Duration;

use crate::{Quantity, Timestamp};

/// A lease is sized for this much of recent spending: longer locks up money, shorter costs transactions.
pub const LEASE_HORIZON: Duration = Duration::from_secs(2);

/// What one node has leased from one purse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    free: Quantity,
    held: Quantity,
}

/// The lease has less than was asked for; the store must be asked before anybody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// What is missing.
    pub missing: Quantity,
}

impl Lease {
    /// What could be held at once.
    pub const fn free(&self) -> Quantity {
        self.free
    }

    /// Whether a request has something set aside of it.
    pub const fn is_held(&self) -> bool {
        !self.held.is_zero()
    }

    /// Whether nothing is left of it: neither free nor held.
    pub const fn is_empty(&self) -> bool {
        self.free.is_zero() && self.held.is_zero()
    }

    /// The store granted this much more.
    pub const fn grant(&mut self, more: Quantity) {
        self.free = self.free.saturating_add(more);
    }

    /// Sets the most that a request can use aside.
    pub fn hold(&mut self, most: Quantity) -> Result<(), Short> {
        let missing = most.saturating_sub(self.free);
        if !missing.is_zero() {
            return Err(Short { missing });
        }
        self.free = self.free.saturating_sub(most);
        self.held = self.held.saturating_add(most);
        Ok(())
    }

    /// Ends a hold: `used`, at most the hold, leaves the lease by way of the group commit; the rest is free again.
    pub fn settle(&mut self, held: Quantity, used: Quantity) {
        self.held = self.held.saturating_sub(held);
        self.free = self.free.saturating_add(held.saturating_sub(used));
    }

    /// Takes up to `most` of what is free, to give it back to the store.
    pub fn release(&mut self, most: Quantity) -> Quantity {
        let taken = self.free.min(most);
        self.free = self.free.saturating_sub(taken);
        taken
    }
}

/// How much to lease when a request needs `need`: two seconds of recent spending, at least the request at hand, at
/// most a share of what is `available` that leaves the other nodes theirs.
pub fn grant_size(need: Quantity, spent_in_horizon: Quantity, available: Quantity, nodes: u32) -> Quantity {
    let share = available.part(nodes.max(1).saturating_mul(2));
    spent_in_horizon.min(share).max(need).min(available)
}

/// When a node must fall silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    deadline: Timestamp,
}

impl Fence {
    /// A lease that was asked for at `asked` and lasts `lease`.
    pub fn new(asked: Timestamp, lease: Duration) -> Self {
        Self { deadline: asked.after(lease) }
    }

    /// One that ends at this point of its node's clock.
    pub const fn until(deadline: Timestamp) -> Self {
        Self { deadline }
    }

    /// When it ends.
    pub const fn deadline(self) -> Timestamp {
        self.deadline
    }

    /// Whether the node may still send and settle.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        now < self.deadline
    }
}

/// Whether the store may take back what a node leased whose lease ended at `expires_at` by the store's clock.
pub fn may_reclaim(expires_at: Timestamp, now: Timestamp, grace: Duration) -> bool {
    now >= expires_at.after(grace)
}

#[cfg(test)]
mod tests;
