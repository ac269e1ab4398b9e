//! Holds: what differs between SQLite and PostgreSQL.

use sea_orm::{DbBackend, Statement, Value};

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Column types that a bound parameter may need to be told about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    Uuid,
    BigInt,
    Text,
}

impl Dialect {
    /// A statement with `$1`-style parameters, which both databases take.
    pub(crate) fn statement(self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
        let backend = match self {
            Self::Sqlite => DbBackend::Sqlite,
            Self::Postgres => DbBackend::Postgres,
        };
        Statement::from_sql_and_values(backend, sql, values)
    }

    /// Row lock for what the transaction is going to change. SQLite's writers are serialised already.
    pub(crate) const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// Shared row lock that holds off only who locks the row with [`Self::for_update`]. A plain UPDATE passes, so that
    /// a node's renewal never waits for the many transactions that rely on its epoch.
    pub(crate) const fn for_key_share(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR KEY SHARE",
        }
    }

    /// Asks whether the table that `$1` names exists, as a count `n`.
    pub(crate) const fn table_exists(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => "SELECT count(to_regclass($1)) AS n",
        }
    }

    /// Row lock that passes over rows that another transaction holds.
    pub(crate) const fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// `(VALUES …)` rows for a common table expression: `rows` tuples of `types`. They take the statement's first
    /// parameters, and no other may stand before them.
    pub(crate) fn values(self, rows: usize, types: &[Type]) -> String {
        let mut sql = String::with_capacity(8 + rows * types.len() * 14);
        sql.push_str("VALUES ");
        let mut parameter = 1;
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ",(" });
            for (i, kind) in types.iter().enumerate() {
                if i > 0 {
                    sql.push(',');
                }
                self.push_next(&mut sql, parameter);
                if self == Self::Postgres && row == 0 {
                    sql.push_str(match kind {
                        Type::Uuid => "::uuid",
                        Type::BigInt => "::bigint",
                        Type::Text => "::text",
                    });
                }
                parameter += 1;
            }
            sql.push(')');
        }
        sql
    }

    /// `VALUES (…), …` for an INSERT: `rows` tuples of `columns` parameters, the first of the statement.
    pub(crate) fn rows(self, rows: usize, columns: usize) -> String {
        let mut sql = String::with_capacity(8 + rows * columns * 5);
        sql.push_str("VALUES ");
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ",(" });
            for column in 0..columns {
                if column > 0 {
                    sql.push(',');
                }
                self.push_next(&mut sql, row * columns + column + 1);
            }
            sql.push(')');
        }
        sql
    }

    /// A parameter of a list that is numbered in order. SQLite finds the name of a numbered parameter by walking a list
    /// of all of them, so that binding would take the square of their number.
    fn push_next(self, sql: &mut String, number: usize) {
        match self {
            Self::Sqlite => sql.push('?'),
            Self::Postgres => push_parameter(sql, number),
        }
    }

    /// The present by the clock that all nodes share: PostgreSQL's own, or the caller's, which on SQLite is the same
    /// machine's. `parameter` is where the caller's clock is bound.
    pub(crate) fn shared_now(self, parameter: usize) -> String {
        match self {
            Self::Sqlite => format!("${parameter}"),
            Self::Postgres => format!(
                "(CASE WHEN ${parameter}::bigint IS NULL THEN 0 ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::bigint END)"
            ),
        }
    }

    /// A statement of the schema with this database's names for `{uuid}` and `{bytes}`; `None` if there is nothing in
    /// it, or if it begins with the name of the other database: `{sqlite}`, `{postgres}`.
    pub(crate) fn schema(self, statement: &str) -> Option<String> {
        let (own, other, uuid, bytes) = match self {
            Self::Sqlite => ("{sqlite}", "{postgres}", "blob", "blob"),
            Self::Postgres => ("{postgres}", "{sqlite}", "uuid", "bytea"),
        };
        let statement = statement.trim();
        let statement = statement.strip_prefix(own).unwrap_or(statement);
        let applies = !statement.is_empty() && !statement.starts_with(other);
        applies.then(|| statement.replace("{uuid}", uuid).replace("{bytes}", bytes))
    }
}

/// `$first,$first+1,…`: as many parameters as `n`.
pub(crate) fn marks(n: usize, first: usize) -> String {
    let mut sql = String::with_capacity(n * 4);
    for parameter in first..first + n {
        if parameter > first {
            sql.push(',');
        }
        push_parameter(&mut sql, parameter);
    }
    sql
}

fn push_parameter(sql: &mut String, number: usize) {
    use std::fmt::Write;
    // Writing to a String cannot fail.
    let _ = write!(sql, "${number}");
}

/// The most rows in one statement; on every hot one it stays far below the 32,766 parameters that SQLite takes.
const LONGEST_RUN: usize = 128;

/// Splits `n` rows into runs that are powers of two, so that bulk statements have few different texts and stay prepared.
pub(crate) fn runs(mut n: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let size = (1 << n.checked_ilog2()?).min(LONGEST_RUN);
        n -= size;
        Some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_everything_with_few_sizes() {
        assert_eq!(runs(0).count(), 0);
        assert_eq!(runs(23).collect::<Vec<_>>(), [16, 4, 2, 1]);
        assert_eq!(runs(300).collect::<Vec<_>>(), [128, 128, 32, 8, 4]);
        assert_eq!((0..600).map(|n| runs(n).sum::<usize>()).collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn only_postgres_needs_casts() {
        assert_eq!(Dialect::Sqlite.values(2, &[Type::Uuid, Type::BigInt]), "VALUES (?,?),(?,?)");
        assert_eq!(Dialect::Postgres.values(2, &[Type::Uuid, Type::BigInt]), "VALUES ($1::uuid,$2::bigint),($3,$4)");
        assert_eq!(Dialect::Sqlite.rows(1, 2), "VALUES (?,?)");
        assert_eq!(Dialect::Postgres.rows(2, 1), "VALUES ($1),($2)");
    }
}
