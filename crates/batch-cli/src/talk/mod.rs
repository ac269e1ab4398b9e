//! Holds: the calls of the public API that the batch commands make, repeated until the server answers.

mod answers;
mod client;
mod reach;
mod retry;
mod upload;

pub(super) use answers::{Created, Detail, Estimate, LineFault, Listed};
pub use client::SetupError;
pub(super) use client::{Client, Submission};
pub use retry::ClientError;
pub(super) use retry::{Patience, Retries, not_understood, understood};
