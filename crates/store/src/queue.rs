//! Holds: batches and their tasks, from the day that they are made to the day that they are forgotten.

pub(crate) mod batches;
pub(crate) mod chores;
pub(crate) mod claims;
pub(crate) mod endings;
pub(crate) mod openings;
pub(crate) mod retention;
pub(crate) mod task_ends;
pub(crate) mod waiting;
