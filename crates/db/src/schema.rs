//! Holds: how a database is brought up to date by numbered migrations.

use crate::{Db, DbError, Dialect, Rerun, WriteTx, retried};

const TABLE: &str = "schema_version";
const COUNT: &str = "SELECT count(*) AS n FROM schema_version";

/// Any number that no other program on the same database server uses; the name in ASCII.
const MIGRATION_LOCK: i64 = 0x62_61_74_63_68_69_6e;

impl Db {
    /// Runs those of these migrations, all in order, that the database has not seen, in one transaction.
    pub(crate) async fn migrate(&self, migrations: &[&str]) -> Result<(), DbError> {
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            run_new(&tx, migrations).await?;
            tx.commit().await
        })
        .await
    }

    /// How many migrations the database has; more than this program knows is an error of the caller's to report.
    pub async fn schema_version(&self) -> Result<usize, DbError> {
        let there = self.one(self.dialect().table_exists(), [TABLE.into()]).await?;
        if there.map_or(Ok(0), |row| row.get::<i64>("n"))? == 0 {
            return Ok(0);
        }
        let row = self.one(COUNT, []).await?;
        as_version(row.map_or(Ok(0), |row| row.get("n"))?)
    }
}

async fn run_new(tx: &WriteTx, migrations: &[&str]) -> Result<(), DbError> {
    if tx.dialect == Dialect::Postgres {
        tx.one("SELECT pg_advisory_xact_lock($1)", [MIGRATION_LOCK.into()]).await?;
    }
    tx.run("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)", []).await?;
    let row = tx.one(COUNT, []).await?;
    let current = as_version(row.map_or(Ok(0), |row| row.get("n"))?)?;
    for (number, sql) in (1_i64..).zip(migrations).skip(current) {
        for statement in sql.split(";\n").filter_map(|statement| tx.dialect.schema(statement)) {
            tx.run(statement, []).await?;
        }
        tx.run("INSERT INTO schema_version (version) VALUES ($1)", [number.into()]).await?;
    }
    Ok(())
}

fn as_version(count: i64) -> Result<usize, DbError> {
    usize::try_from(count).map_err(|_| DbError::Corrupt { table: TABLE, column: "version" })
}
