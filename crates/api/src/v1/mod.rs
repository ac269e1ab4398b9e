//! Holds: the calls below `/v1`, one file each, by noun and verb.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod batches;
pub(crate) mod chains;
pub(crate) mod credits;
pub(crate) mod images;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod statements;
pub(crate) mod topup;
pub(crate) mod upstreams;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod video;
pub(crate) mod voices;
pub(crate) mod webhooks;
