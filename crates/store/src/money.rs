//! Holds: what accounts have, what of it is leased to nodes, and the prices that it is spent by.

pub(crate) mod addresses;
pub(crate) mod admin_log;
pub(crate) mod auto;
pub(crate) mod booking;
pub(crate) mod credit;
pub(crate) mod deposit_credits;
pub(crate) mod deposits;
pub(crate) mod history;
pub(crate) mod inbox;
pub(crate) mod leases;
pub(crate) mod prices;
pub(crate) mod scans;
pub(crate) mod topups;

use batchin_db::Db;

/// Giving credit and taking it back. Held by nobody but the operator's commands.
#[derive(Clone)]
pub struct Credit {
    pub(crate) db: Db,
}

/// Payments, and what becomes of their money. Held by who hears of it from outside.
#[derive(Clone)]
pub struct Topups {
    pub(crate) db: Db,
}

/// What accounts were given and have. Held by who shows it.
#[derive(Clone)]
pub struct Balances {
    pub(crate) db: Db,
}

/// What of balances and budgets is leased to nodes. Held by the gateway.
#[derive(Clone)]
pub struct Purses {
    pub(crate) db: Db,
}

/// Price lists. Held by who brings a configuration into force.
#[derive(Clone)]
pub struct Prices {
    pub(crate) db: Db,
}
