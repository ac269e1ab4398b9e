//! Holds: how long so many moments last.

use std::time::Duration;

/// Moments at a rate in Hz that is not 0, rounded to the nearest microsecond.
pub(crate) fn span(moments: u64, rate: u32) -> Duration {
    let rate = u128::from(rate.max(1));
    let micros = (u128::from(moments) * 1_000_000 + rate / 2) / rate;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
