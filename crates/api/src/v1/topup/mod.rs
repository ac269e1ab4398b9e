//! Holds: money in.

pub(crate) mod auto;
pub(crate) mod checkout;
pub(crate) mod history;
pub(crate) mod reports;
pub(crate) mod usdc;
pub(crate) mod x402;
