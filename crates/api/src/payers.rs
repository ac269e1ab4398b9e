//! Holds: how often an account may have the facilitator of x402 asked, and how many at once: it is somebody else's, and not for a
//! customer to have hammered by us.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use batchin_domain::AccountId;
use batchin_openai::Code;
use batchin_shares::{NoShare, Share, ShareLimits, Shares};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use moka::sync::Cache;

use crate::error::ApiError;

/// Payments on their way to the facilitator at once. Each waits for a block.
const AT_ONCE: u64 = 32;
/// What one account may have of them while nobody else pays, in percent: three.
const MOST_PERCENT: u64 = 10;
/// Payments of one account in a minute: one every few seconds, and no more for one that only sends nonsense.
const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
/// Accounts that are remembered; the least used are forgotten first.
const MAX_REMEMBERED: u64 = 10_000;
/// A limiter that was not asked for this long is full again.
const FORGET_AFTER: Duration = Duration::from_secs(120);

/// Counts those who pay.
pub(crate) struct Payers {
    at_once: Arc<Shares<AccountId>>,
    accounts: Cache<AccountId, Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
}

impl Payers {
    pub(crate) fn new() -> Self {
        let at_once = Shares::new(ShareLimits { capacity: AT_ONCE, most_percent: MOST_PERCENT });
        let accounts = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(FORGET_AFTER).build();
        Self { at_once, accounts, clock: DefaultClock::default() }
    }

    /// One payment of an account, until what is returned is dropped.
    pub(crate) fn enter(&self, account: AccountId) -> Result<Share<AccountId>, ApiError> {
        let share = self.at_once.take(account, 1).map_err(|why| match why {
            NoShare::Full => ApiError::unavailable("Many accounts pay at this moment; nothing was paid. Try again."),
            NoShare::OverPart => {
                ApiError::over_share("This account has several payments on their way; nothing more was paid.")
            }
        })?;
        let limiter = self.accounts.get_with(account, || Arc::new(RateLimiter::direct(Quota::per_minute(PER_MINUTE))));
        limiter.check().map_err(|until| {
            let message = format!("An account may pay {PER_MINUTE} times a minute; nothing more was paid.");
            ApiError::new(Code::RateLimitExceeded, message).retry_after(until.wait_time_from(self.clock.now()))
        })?;
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::AccountId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nobody_has_the_facilitator_hammered() {
        let payers = Payers::new();
        let account = |number| AccountId::new(Uuid::from_u128(number));
        let held: Vec<_> = (0..3).map(|_| payers.enter(account(1)).unwrap()).collect();
        assert_eq!(payers.enter(account(1)).err().map(|error| error.status().as_u16()), Some(429));
        drop(payers.enter(account(2)).unwrap());
        drop(held);
        let taken = (0..40).filter(|_| payers.enter(account(1)).is_ok()).count();
        assert!((17..=18).contains(&taken), "{taken}");
        drop(payers.enter(account(2)).unwrap());
    }
}
