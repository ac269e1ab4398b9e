//! Holds: tests against real server processes: started, loaded, killed, stalled and told to stop.
//!
//! Only the model servers are simulated. Everything is asked for over HTTP or the command line, as a customer or an
//! operator would.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they are the assertions of a test")]

mod addresses;
mod agreement;
mod batches;
mod buckets;
mod budgets;
mod command_line;
mod connections;
mod database;
mod description;
mod disks;
mod drains;
mod expiry;
mod failpoints;
mod harness;
mod idempotency;
mod kills;
mod mail;
mod months;
mod neighbour;
mod outages;
mod overspend;
mod payments;
mod rate_limits;
mod reload;
mod retry_after;
mod revocation;
mod rooms;
mod saturation;
mod shutdown;
mod stalls;
mod streams;
mod unread;
mod upstream_trouble;
