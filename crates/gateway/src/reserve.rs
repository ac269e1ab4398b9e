//! Holds: what a request sets aside before it runs: one request of the minute, its highest cost on the key's budget and
//! on the account's balance; a batch's task also on what its batch may cost.

use std::time::Duration;

use batchin_domain::{Amount, BatchId, Counts, Measure, Month, Purse, Quantity, Tariff, Timestamp};
use batchin_store::{CommitError, StoreError};

use crate::{
    Caller, Epoch, Fenced,
    escrow::{EscrowError, Hold},
};

/// How a key stands with its rate limit, for the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateInfo {
    /// Requests a minute.
    pub limit: u32,
    /// How many of them are left.
    pub remaining: u32,
    /// Until the next minute begins; at most one minute.
    pub reset: Duration,
}

/// Why nothing was set aside, whatever there is.
#[derive(Debug, thiserror::Error)]
pub enum PurseError {
    /// The account or the key is gone.
    #[error("the account or the key is gone")]
    CallerGone,
    /// This node may not spend now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

/// Why a request does not count among those of its key's minute.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The key has made its requests of this minute.
    #[error("the key's rate limit is used up")]
    RateLimited(RateInfo),
    /// Nobody knows how many it has made.
    #[error(transparent)]
    Purse(#[from] PurseError),
}

/// Why what a batch may cost does not cover its task.
#[derive(Debug, thiserror::Error)]
pub enum CapError {
    /// What is left of the batch's highest cost does not cover the task's.
    #[error("the batch's highest cost does not cover the request")]
    TooLow,
    /// Nobody knows what is left.
    #[error(transparent)]
    Purse(#[from] PurseError),
}

/// Why a request cannot be paid for.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The account does not cover the highest possible cost.
    #[error("the balance does not cover the request")]
    BalanceTooLow {
        /// The highest possible cost.
        needed: Amount,
        /// What could be set aside.
        available: Amount,
        /// The `max_tokens` that could be paid for, where there is one.
        affordable_output: Option<u64>,
    },
    /// The key's monthly budget does not cover the highest possible cost.
    #[error("the key's budget does not cover the request")]
    BudgetTooLow {
        /// The highest possible cost.
        needed: Amount,
        /// What is left of the month.
        available: Amount,
    },
    /// Nobody knows what there is.
    #[error(transparent)]
    Purse(#[from] PurseError),
}

/// Money set aside for one request. Dropped, all of it is free again.
#[must_use = "a dropped reservation is given back"]
pub struct Reservation {
    balance: Hold,
    budget: Option<Hold>,
    cap: Option<Hold>,
    /// The month whose budget it counts for.
    pub month: Month,
}

impl Reservation {
    /// What can be charged.
    pub fn amount(&self) -> Amount {
        self.balance.quantity().money()
    }

    /// Whether it lies on a budget too.
    pub fn on_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// Whether it lies on what a batch may cost too.
    pub fn on_cap(&self) -> bool {
        self.cap.is_some()
    }

    /// The same, with what its batch may cost set aside too.
    pub fn within(self, cap: Option<Hold>) -> Self {
        Self { cap, ..self }
    }

    /// `used` goes to the ledger, the rest is free again.
    pub fn settle(self, used: Amount) {
        let used = used.into();
        self.balance.settle(used);
        for hold in [self.budget, self.cap].into_iter().flatten() {
            hold.settle(used);
        }
    }

    /// The same as soon as it is known that the ledger took it: see [`Charging`].
    pub(crate) fn charging(self, charge: Amount) -> Charging {
        Charging { reservation: Some(self), charge }
    }

    /// `used` goes to the ledger, the rest stays set aside.
    pub fn settle_part(&mut self, used: Amount) {
        let used = used.into();
        self.balance.settle_part(used);
        for hold in [&mut self.budget, &mut self.cap].into_iter().flatten() {
            hold.settle_part(used);
        }
    }
}

/// A reservation whose charge is on its way to the ledger. Dropped, the charge counts as made: nobody may know any more.
#[must_use = "a dropped charge counts as made"]
pub(crate) struct Charging {
    reservation: Option<Reservation>,
    charge: Amount,
}

impl Charging {
    /// What came of it. Where the claim that it belongs to was no longer current, nothing was written and nothing will be:
    /// all of it is free again. Of everything else that may be said the charge may stand.
    pub(crate) fn end(mut self, committed: Result<(), CommitError>) -> Result<(), CommitError> {
        if matches!(committed, Err(CommitError::StaleTask)) {
            drop(self.reservation.take());
        }
        committed
    }
}

impl Drop for Charging {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(self.charge);
        }
    }
}

/// What to set aside and how to explain it when there is not enough.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// The highest possible cost.
    pub cost: Amount,
    /// By which prices.
    pub tariff: Tariff,
    /// The most of each measure, of all answers together, without its parts: any of the prompt may be found in a cache or
    /// written to one.
    pub most: Counts,
    /// How many answers: choices × prompts.
    pub answers: u64,
}

/// Takes one request of the key's minute.
pub async fn take_request(epoch: &Epoch, caller: &Caller, now: Timestamp) -> Result<Option<RateInfo>, TakeError> {
    let (Some(key), Some(limit)) = (caller.key, caller.rate_limit_rpm) else { return Ok(None) };
    let minute = now.minute();
    let reset = minute.end().since(now);
    let short = |_| TakeError::RateLimited(RateInfo { limit, remaining: 0, reset });
    let hold =
        epoch.escrow.hold(Purse::Requests(key, minute), Quantity::ONE).await.map_err(|cause| refusal(cause, short))?;
    let remaining = u32::try_from(hold.remaining().units()).unwrap_or(u32::MAX);
    hold.settle(Quantity::ONE);
    Ok(Some(RateInfo { limit, remaining, reset }))
}

/// Sets a task's highest possible cost aside on what its batch may cost.
pub async fn reserve_cap(epoch: &Epoch, batch: BatchId, needed: Amount) -> Result<Hold, CapError> {
    let hold = epoch.escrow.hold(Purse::Cap(batch), needed.into()).await;
    hold.map_err(|cause| refusal(cause, |_| CapError::TooLow))
}

/// Sets the highest possible cost aside.
pub async fn reserve(
    epoch: &Epoch,
    caller: &Caller,
    ceiling: Ceiling,
    now: Timestamp,
) -> Result<Reservation, ReserveError> {
    let (month, needed) = (now.month(), ceiling.cost);
    let budget = match caller.key.zip(caller.monthly_budget) {
        Some((key, _)) => {
            let short = |left: Quantity| ReserveError::BudgetTooLow { needed, available: left.money() };
            let hold = epoch.escrow.hold(Purse::Budget(key, month), needed.into()).await;
            Some(hold.map_err(|cause| refusal(cause, short))?)
        }
        None => None,
    };
    let short = |left: Quantity| {
        let available = left.money();
        let output = ceiling.tariff.affordable(Measure::CompletionTokens, available, ceiling.most);
        let affordable_output = output.map(|tokens| tokens / ceiling.answers.max(1)).filter(|tokens| *tokens > 0);
        ReserveError::BalanceTooLow { needed, available, affordable_output }
    };
    let hold = epoch.escrow.hold(Purse::Balance(caller.account), needed.into()).await;
    let balance = hold.map_err(|cause| refusal(cause, short))?;
    Ok(Reservation { balance, budget, cap: None, month })
}

/// What a hold's failure means, `short` aside.
fn refusal<E: From<PurseError>>(cause: EscrowError, short: impl FnOnce(Quantity) -> E) -> E {
    let other = match cause {
        EscrowError::Short { available } => return short(available),
        EscrowError::Gone => PurseError::CallerGone,
        EscrowError::Fenced | EscrowError::Interrupted => Fenced.into(),
        EscrowError::Store(cause) => PurseError::Store(cause),
    };
    other.into()
}
