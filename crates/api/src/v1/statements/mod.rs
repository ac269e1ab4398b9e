//! Holds: what an account's money did, month by month.

mod csv;
mod document;
pub(crate) mod list;
mod pdf;
pub(crate) mod show;
