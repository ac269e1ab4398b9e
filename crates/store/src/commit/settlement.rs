//! Holds: what is written when a request or a task ends, whole or not at all.

use batchin_domain::{AccountId, Amount, KeyId, Month, Timestamp, TransferId};

use crate::{FilmFinish, IdempotencyScope, StoredAnswer, TaskFinish, UsageRecord};

/// One request's charge and everything that must be durable with it.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Names the charge; the same settlement handed in again is recognised by it.
    pub charge_id: TransferId,
    /// Who pays.
    pub account: AccountId,
    /// The key that it counts for.
    pub key: Option<KeyId>,
    /// The month that the hold was opened in.
    pub month: Month,
    /// Whether the hold also lay on the key's budget.
    pub budget_held: bool,
    /// What is charged now: for a stream that was flushed before, only what came since.
    pub charge: Amount,
    /// What flushes charged too much and is given back now; zero where something is charged.
    pub given_back: Amount,
    /// The request so far; written over what was flushed before.
    pub usage: Option<UsageRecord>,
    /// The task that ends with it.
    pub task: Option<TaskFinish>,
    /// The film whose job ends with it. Boxed: few requests make one.
    pub film: Option<Box<FilmFinish>>,
    /// Whether the hold also lay on what the task's batch may cost.
    pub cap_held: bool,
    /// The answer to remember for the request's Idempotency-Key.
    pub answer: Option<(IdempotencyScope, StoredAnswer)>,
    /// When.
    pub now: Timestamp,
}

impl Settlement {
    /// Nothing was charged for the request before, and so there is no row of its usage yet.
    pub(crate) fn is_first(&self) -> bool {
        self.given_back.is_zero() && self.usage.as_ref().is_none_or(|usage| usage.cost == self.charge)
    }
}
