//! Holds: a real chain for tests: anvil, a token that is placed where USDC lies, and endpoints in front that do not tell the truth.
//!
//! The chain is no imitation; its blocks are made and dropped when the test says so. It fails loudly.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]

mod anvil;
mod http;
mod liar;
mod token;

pub use anvil::Anvil;
pub use liar::{Fault, Liar};
