//! Holds: what accounts have, what of it is leased to nodes, and the prices that it is spent by.

pub(crate) mod credit;
pub(crate) mod leases;
pub(crate) mod prices;
