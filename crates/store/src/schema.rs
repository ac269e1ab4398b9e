//! Holds: the tables, as numbered migrations.
//!
//! A migration that has been released is never edited; a change is a new one at the end.

use sea_orm::{ConnectionTrait, DbErr};

use crate::{StoreError, connect::WriteTx, dialect::Dialect, row::Row};

/// Every migration in order; its number is its position, from one.
const MIGRATIONS: &[&str] = &[
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
];

const TABLE: &str = "schema_version";
const COUNT: &str = "SELECT count(*) AS n FROM schema_version";

/// Any number that no other program on the same database server uses; the name in ASCII.
const MIGRATION_LOCK: i64 = 0x62_61_74_63_68_69_6e;

/// Brings the database up to date inside `tx`. Returns how many migrations ran.
pub(crate) async fn migrate(tx: &WriteTx) -> Result<usize, StoreError> {
    if tx.dialect == Dialect::Postgres {
        tx.one("SELECT pg_advisory_xact_lock($1)", [MIGRATION_LOCK.into()]).await?;
    }
    tx.run("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)", []).await?;
    let row = tx.one(COUNT, []).await?;
    let current: i64 = row.map_or(Ok(0), |row: Row| row.try_get("", "n"))?;
    let current = usize::try_from(current).map_err(|_| StoreError::Corrupt { table: TABLE, column: "version" })?;
    for (number, sql) in (1_i64..).zip(MIGRATIONS).skip(current) {
        for statement in sql.split(";\n").filter_map(|statement| tx.dialect.schema(statement)) {
            tx.run(statement, []).await?;
        }
        tx.run("INSERT INTO schema_version (version) VALUES ($1)", [number.into()]).await?;
    }
    Ok(MIGRATIONS.len().saturating_sub(current))
}

/// How many migrations the database has; more than this program knows is an error of the caller's to report.
pub(crate) async fn version(tx: &impl ConnectionTrait, dialect: Dialect) -> Result<usize, DbErr> {
    let row = tx.query_one_raw(dialect.statement(dialect.table_exists(), [TABLE.into()])).await?;
    if row.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))? == 0 {
        return Ok(0);
    }
    let row = tx.query_one_raw(dialect.statement(COUNT, [])).await?;
    let count: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    usize::try_from(count).map_err(|e| DbErr::Custom(e.to_string()))
}

/// How many migrations this program has.
pub(crate) const fn known() -> usize {
    MIGRATIONS.len()
}
