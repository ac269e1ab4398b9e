//! Holds: one suite that runs every verb on SQLite and on PostgreSQL.
//!
//! PostgreSQL is found by `BATCHIN_TEST_POSTGRES`, which `make test` sets to a cluster of its own. Without it the
//! PostgreSQL half fails; it is never skipped.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they are the assertions of a test")]

mod batches;
mod budgets;
mod check;
mod chores;
mod commits;
mod conservation;
mod deposits;
mod drains;
mod files;
mod films;
mod idempotency;
mod leases;
mod ledger;
mod lost;
mod migrations;
mod nodes;
mod people;
mod prices;
mod random;
mod support;
mod topups;
mod usage;
mod voices;
mod waiting;
mod webhooks;
