//! Holds: payments on a real chain, which is mined and reorganised as each test says, and what other libraries make of ours.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they are the assertions of a test")]

mod doubt;
mod other_libraries;
mod payments;
mod reorgs;
mod scale;
mod world;
