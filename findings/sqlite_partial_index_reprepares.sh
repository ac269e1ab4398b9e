#!/usr/bin/env bash
# rusqlite 0.43.0 with its bundled SQLite 3.54.1 (libsqlite3-sys 0.40.0, crates.io), seen on 2026-11-30.
#
# A prepared statement that compares a parameter with the column in the WHERE of a partial index is compiled again each time
# it runs with its parameters bound anew, though it be to the same values: SQLite looks at the value to know whether the index
# may serve, and from then on a binding lets the statement expire. A cache of statements saves nothing then. With the value
# in the statement's text, or with SQLITE_DBCONFIG_ENABLE_QPSG, which makes a plan for any values, it is compiled once.
#
# Output seen:
#   SQLite 3.54.1
#   state bound: compiled again 1000 times of 1000
#   state as a literal: 0
#   state bound, QPSG on: 0
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2021"
[dependencies]
rusqlite = { version = "=0.43.0", default-features = false, features = ["bundled", "cache"] }
libsqlite3-sys = "=0.40.0"
TOML
cat >src/main.rs <<'RUST'
use rusqlite::{config::DbConfig, Connection, StatementStatus};

fn compiled_again(sql: &str, stable: bool) -> rusqlite::Result<i32> {
    let db = Connection::open_in_memory()?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, stable)?;
    db.execute_batch(
        "CREATE TABLE job (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, due INTEGER NOT NULL);
         CREATE INDEX job_ready ON job (due) WHERE state = 0",
    )?;
    let mut again = 0;
    for _ in 0..1_000 {
        let mut statement = db.prepare_cached(sql)?;
        if statement.parameter_count() == 2 {
            statement.query_row((0, 7), |row| row.get::<_, i64>(0))?;
        } else {
            statement.query_row((7,), |row| row.get::<_, i64>(0))?;
        }
        again += statement.reset_status(StatementStatus::RePrepare);
    }
    Ok(again)
}

fn main() -> rusqlite::Result<()> {
    let (bound, literal) = (
        "SELECT count(*) FROM job WHERE state = ?1 AND due <= ?2",
        "SELECT count(*) FROM job WHERE state = 0 AND due <= ?1",
    );
    println!("SQLite {}", rusqlite::version());
    println!("state bound: compiled again {} times of 1000", compiled_again(bound, false)?);
    println!("state as a literal: {}", compiled_again(literal, false)?);
    println!("state bound, QPSG on: {}", compiled_again(bound, true)?);
    Ok(())
}
RUST
cargo run --quiet | tee out
diff - out <<'SEEN'
SQLite 3.54.1
state bound: compiled again 1000 times of 1000
state as a literal: 0
state bound, QPSG on: 0
SEEN
