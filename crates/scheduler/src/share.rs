//! Holds: whose waiting tasks a node takes next.
//!
//! The durable queue may have a million tasks of one account and ten of another. A node takes as many of each, so that
//! the order in which it then starts them, which is fair by cost, has both to choose from.

use batchin_domain::{AccountId, BatchId};

/// Batches of one account that are taken from at once: the oldest first, and a long one does not keep back the next.
const BATCHES_AT_ONCE: usize = 4;

/// A batch with tasks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Names it.
    pub batch: BatchId,
    /// Whose.
    pub account: AccountId,
}

/// What a node takes, and where it looks next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// How many tasks of each batch; together at most the room there was.
    pub take: Vec<(BatchId, u32)>,
    /// The last account that was looked at, when there was no room for all: the next look begins after it.
    pub last: Option<AccountId>,
}

/// Shares `room` places among batches that are ordered by account and age. `cut` says that the list was cut off.
pub fn shares(waiting: &[Waiting], room: u32, cut: bool) -> Shares {
    let accounts: Vec<&[Waiting]> = waiting.chunk_by(|a, b| a.account == b.account).collect();
    let fitting = accounts.len().min(usize::try_from(room).unwrap_or(usize::MAX));
    let Some(number) = u32::try_from(fitting).ok().filter(|number| *number > 0) else { return Shares::default() };
    let (each, rest) = (room / number, room % number);
    let mut take = Vec::new();
    for (account, index) in accounts.iter().zip(0..number) {
        share_within(account, each + u32::from(index < rest), &mut take);
    }
    let last = accounts.get(fitting - 1).and_then(|account| account.first()).map(|first| first.account);
    Shares { take, last: last.filter(|_| cut || fitting < accounts.len()) }
}

fn share_within(batches: &[Waiting], room: u32, take: &mut Vec<(BatchId, u32)>) {
    let chosen = batches.len().min(BATCHES_AT_ONCE).min(usize::try_from(room).unwrap_or(usize::MAX));
    let Some(number) = u32::try_from(chosen).ok().filter(|number| *number > 0) else { return };
    let (each, rest) = (room / number, room % number);
    for (waiting, index) in batches.iter().zip(0..number) {
        take.push((waiting.batch, each + u32::from(index < rest)));
    }
}
