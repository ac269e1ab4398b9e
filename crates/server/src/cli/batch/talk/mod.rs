//! Holds: the calls of the public API that the batch commands make, repeated until the server answers.

mod answers;
mod client;
mod retry;
mod upload;

pub(super) use answers::{Created, Detail, Estimate, LineFault, Listed};
pub(super) use client::{Client, Submission};
pub use retry::ClientError;
pub(super) use retry::{Patience, Retries};
