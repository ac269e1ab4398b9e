//! Holds: every documented call through the real router, over a socket, on SQLite and on PostgreSQL.
//!
//! PostgreSQL is found by `BATCHIN_TEST_POSTGRES`, which `make test` sets to a cluster of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]

mod access;
mod audit;
mod auto_topups;
mod batches;
mod cache_prices;
mod cards;
mod comfyui;
mod counting;
mod credits;
mod deposits;
mod edges;
mod embeddings;
mod fallbacks;
mod faults;
mod files;
mod films;
mod fim;
mod front;
mod hearing;
mod inference;
mod keys;
mod leaving;
mod makers;
mod model_servers;
mod models;
mod native;
mod nul;
mod odd_servers;
mod openai_batches;
mod picture_edits;
mod pictures;
mod rerank;
mod retold;
mod speech;
mod statements;
mod tiers;
mod transcripts;
mod upstreams;
mod usage;
mod users;
mod webhooks;
mod x402;
