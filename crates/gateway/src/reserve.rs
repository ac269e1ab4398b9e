//! Holds: what a request sets aside before it runs: one request of the minute, its highest cost on the key's budget and
//! on the account's balance; a batch's task also on what its batch may cost.

use std::time::Duration;

use batchin_domain::{Amount, Month, Price, Purse, Timestamp};

use crate::{
    Caller, Epoch, RequestError,
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
        self.balance.amount()
    }

    /// Whether it lies on a budget too.
    pub fn on_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// Whether it lies on what a batch may cost too.
    pub fn on_cap(&self) -> bool {
        self.cap.is_some()
    }

    /// `used` goes to the ledger, the rest is free again.
    pub fn settle(self, used: Amount) {
        self.balance.settle(used);
        for hold in [self.budget, self.cap].into_iter().flatten() {
            hold.settle(used);
        }
    }

    /// `used` goes to the ledger, the rest stays set aside.
    pub fn settle_part(&mut self, used: Amount) {
        self.balance.settle_part(used);
        for hold in [&mut self.budget, &mut self.cap].into_iter().flatten() {
            hold.settle_part(used);
        }
    }
}

/// What to set aside and how to explain it when there is not enough.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// The highest possible cost.
    pub cost: Amount,
    /// By which price.
    pub price: Price,
    /// The most prompt tokens.
    pub input: u64,
    /// The most completion tokens, of all answers together.
    pub output: u64,
    /// How many those are: choices × prompts.
    pub answers: u64,
}

/// Takes one request of the key's minute.
pub async fn take_request(epoch: &Epoch, caller: &Caller, now: Timestamp) -> Result<Option<RateInfo>, RequestError> {
    let (Some(key), Some(limit)) = (caller.key, caller.rate_limit_rpm) else { return Ok(None) };
    let minute = now.minute();
    let reset = minute.end().since(now);
    let one = Amount::saturating_from_nanos(1);
    let short = |_| RequestError::RateLimited(RateInfo { limit, remaining: 0, reset });
    let hold = epoch.escrow.hold(Purse::Requests(key, minute), one).await.map_err(|cause| refusal(cause, short))?;
    let remaining = u32::try_from(hold.remaining().nanos()).unwrap_or(u32::MAX);
    hold.settle(one);
    Ok(Some(RateInfo { limit, remaining, reset }))
}

/// Sets the highest possible cost aside.
pub async fn reserve(
    epoch: &Epoch,
    caller: &Caller,
    ceiling: Ceiling,
    now: Timestamp,
) -> Result<Reservation, RequestError> {
    let (month, needed) = (now.month(), ceiling.cost);
    let cap = match caller.capped_by {
        Some(batch) => {
            let hold = epoch.escrow.hold(Purse::Cap(batch), needed).await;
            Some(hold.map_err(|cause| refusal(cause, |_| RequestError::CapTooLow))?)
        }
        None => None,
    };
    let budget = match caller.key.zip(caller.monthly_budget) {
        Some((key, _)) => {
            let short = |available| RequestError::BudgetTooLow { needed, available };
            let hold = epoch.escrow.hold(Purse::Budget(key, month), needed).await;
            Some(hold.map_err(|cause| refusal(cause, short))?)
        }
        None => None,
    };
    let short = |available| {
        let output = ceiling.price.affordable_output(available, ceiling.input);
        let affordable_output = output.map(|tokens| tokens / ceiling.answers.max(1)).filter(|tokens| *tokens > 0);
        RequestError::BalanceTooLow { needed, available, affordable_output }
    };
    let hold = epoch.escrow.hold(Purse::Balance(caller.account), needed).await;
    let balance = hold.map_err(|cause| refusal(cause, short))?;
    Ok(Reservation { balance, budget, cap, month })
}

/// What a hold's failure means, `short` aside.
fn refusal(cause: EscrowError, short: impl FnOnce(Amount) -> RequestError) -> RequestError {
    match cause {
        EscrowError::Short { available } => short(available),
        EscrowError::Gone => RequestError::CallerGone,
        EscrowError::Fenced | EscrowError::Interrupted => RequestError::Fenced,
        EscrowError::Store(cause) => RequestError::Store(cause),
    }
}
