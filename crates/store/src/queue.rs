//! Holds: batches and their tasks, from the day that they are made to the day that they are forgotten.

pub(crate) mod batches;
pub(crate) mod chores;
pub(crate) mod claims;
pub(crate) mod endings;
pub(crate) mod openings;
pub(crate) mod retention;
pub(crate) mod task_ends;
pub(crate) mod waiting;

use batchin_db::Db;

/// Batches and their tasks, as they stand. Held by who shows them, and by stewards.
#[derive(Clone)]
pub struct BatchRows {
    pub(crate) db: Db,
}

/// New batches. Held by who takes them in.
#[derive(Clone)]
pub struct Openings {
    pub(crate) db: Db,
}

/// Tasks that wait, run, or cannot be paid for. Held by workers.
#[derive(Clone)]
pub struct Claims {
    pub(crate) db: Db,
}

/// What is done to a batch as a whole, one node at a time. Held by stewards.
#[derive(Clone)]
pub struct Chores {
    pub(crate) db: Db,
}

/// Batches that end before all their tasks have run. Held by whoever may stop one.
#[derive(Clone)]
pub struct Endings {
    pub(crate) db: Db,
}
