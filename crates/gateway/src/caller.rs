//! Holds: who asks, as proven by a key.

use batchin_domain::{AccountId, Amount, BatchId, KeyId};

/// The account that pays and the key whose limits count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who pays.
    pub account: AccountId,
    /// The key that it came with.
    pub key: Option<KeyId>,
    /// Requests a minute that the key may make; not asked of batch tasks.
    pub rate_limit_rpm: Option<u32>,
    /// What the key may spend in a month.
    pub monthly_budget: Option<Amount>,
    /// The batch whose highest cost counts too.
    pub capped_by: Option<BatchId>,
}
