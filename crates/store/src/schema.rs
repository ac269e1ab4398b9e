//! Holds: the tables, as numbered migrations.
//!
//! A migration that has been released is never edited; a change is a new one at the end.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use crate::dialect::Dialect;

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
];

/// Any number that no other program on the same database server uses; the name in ASCII.
const MIGRATION_LOCK: i64 = 0x62_61_74_63_68_69_6e;

/// Brings the database up to date inside `tx`. Returns how many migrations ran.
pub(crate) async fn migrate(tx: &DatabaseTransaction, dialect: Dialect) -> Result<usize, DbErr> {
    if dialect == Dialect::Postgres {
        tx.execute_raw(dialect.statement("SELECT pg_advisory_xact_lock($1)", [MIGRATION_LOCK.into()])).await?;
    }
    tx.execute_unprepared("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)").await?;
    let current = version(tx, dialect).await?;
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(current) {
        for statement in sql.split(";\n").filter_map(|statement| dialect.schema(statement)) {
            tx.execute_unprepared(&statement).await?;
        }
        let number = i64::try_from(number + 1).map_err(|e| DbErr::Custom(e.to_string()))?;
        tx.execute_raw(dialect.statement("INSERT INTO schema_version (version) VALUES ($1)", [number.into()])).await?;
    }
    Ok(MIGRATIONS.len().saturating_sub(current))
}

/// How many migrations the database has; more than this program knows is an error of the caller's to report.
pub(crate) async fn version(tx: &impl ConnectionTrait, dialect: Dialect) -> Result<usize, DbErr> {
    const TABLE: &str = "schema_version";
    let row = tx.query_one_raw(dialect.statement(dialect.table_exists(), [TABLE.into()])).await?;
    if row.map_or(Ok(0), |row| row.try_get::<i64>("", "n"))? == 0 {
        return Ok(0);
    }
    let row = tx.query_one_raw(dialect.statement(format!("SELECT count(*) AS n FROM {TABLE}"), [])).await?;
    let count: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    usize::try_from(count).map_err(|e| DbErr::Custom(e.to_string()))
}

/// How many migrations this program has.
pub(crate) const fn known() -> usize {
    MIGRATIONS.len()
}
