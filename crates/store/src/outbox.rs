//! Holds: events that customers are told of, and the deliveries that tell them.

pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod log;
pub(crate) mod secrets;

use batchin_db::Db;

/// Deliveries that are due, and the secrets that sign them. Held by who delivers.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) db: Db,
}

/// What became of deliveries. Held by who shows it to their owner.
#[derive(Clone)]
pub struct DeliveryLog {
    pub(crate) db: Db,
}
