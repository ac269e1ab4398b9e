//! Holds: what is remembered of requests: what they consumed, and the answers that may be asked for again.

pub(crate) mod idempotency;
pub(crate) mod record;
pub(crate) mod usage;
pub(crate) mod voices;

use batchin_db::Db;

/// What requests consumed. Held by who shows it; it is written by the [`Committer`](crate::Committer).
#[derive(Clone)]
pub struct Usage {
    pub(crate) db: Db,
}

/// Voices that accounts have made. Held by the gateway, which speaks with them, and by `api`.
#[derive(Clone)]
pub struct Voices {
    pub(crate) db: Db,
}

/// Requests that carry an Idempotency-Key, and their answers. Held by the gateway.
#[derive(Clone)]
pub struct Answers {
    pub(crate) db: Db,
}
