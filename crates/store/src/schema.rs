//! Holds: the tables, as numbered migrations.
//!
//! A migration that has been released is never edited; a change is a new one at the end.

/// Every migration in order; its number is its position, from one.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001_first.sql"),
    include_str!("schema/0002_webhooks.sql"),
    include_str!("schema/0003_files.sql"),
    include_str!("schema/0004_batches.sql"),
    include_str!("schema/0005_grants.sql"),
    include_str!("schema/0006_usage.sql"),
    include_str!("schema/0007_waiting.sql"),
    include_str!("schema/0008_reasoning.sql"),
    include_str!("schema/0009_corrections.sql"),
    include_str!("schema/0010_marks.sql"),
    include_str!("schema/0011_nodes.sql"),
    include_str!("schema/0012_cache_writes.sql"),
    include_str!("schema/0013_made.sql"),
    include_str!("schema/0014_voices.sql"),
    include_str!("schema/0015_films.sql"),
    include_str!("schema/0016_drains.sql"),
    include_str!("schema/0017_money_in.sql"),
    include_str!("schema/0018_deposits.sql"),
    include_str!("schema/0019_auto_topup.sql"),
    include_str!("schema/0020_statements.sql"),
    include_str!("schema/0021_auto_due.sql"),
    include_str!("schema/0022_fresh_deposits.sql"),
    include_str!("schema/0023_mail.sql"),
    include_str!("schema/0025_audit.sql"),
];
