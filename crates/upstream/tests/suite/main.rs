//! Holds: calls against a simulated model server.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they are the assertions of a test")]

mod answers;
mod dialects;
mod failures;
mod golden;
mod health;
mod world;
