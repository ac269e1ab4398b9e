//! Holds: what differs between SQLite and PostgreSQL.

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One file.
    Sqlite,
    /// A server that any number of nodes share.
    Postgres,
}

impl Dialect {
    /// Row lock for what the transaction is going to change. SQLite's writers are serialised already.
    pub const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// Shared row lock that holds off only who locks the row with [`Self::for_update`]. A plain UPDATE passes, so that
    /// a node's renewal never waits for the many transactions that rely on its epoch.
    pub const fn for_key_share(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR KEY SHARE",
        }
    }

    /// Asks whether the table that `$1` names exists, as a count `n`.
    pub const fn table_exists(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => "SELECT count(to_regclass($1)) AS n",
        }
    }

    /// Row lock that passes over rows that another transaction holds.
    pub const fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// The present by the clock that all nodes share: PostgreSQL's own, or the caller's, which on SQLite is the same
    /// machine's. `parameter` is where the caller's clock is bound.
    pub fn shared_now(self, parameter: usize) -> String {
        match self {
            Self::Sqlite => format!("${parameter}"),
            Self::Postgres => format!(
                "(CASE WHEN ${parameter}::bigint IS NULL THEN 0 ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::bigint END)"
            ),
        }
    }

    /// A statement of the schema with this database's names for `{uuid}` and `{bytes}`; `None` if there is nothing in
    /// it, or if it begins with the name of the other database: `{sqlite}`, `{postgres}`.
    pub fn schema(self, statement: &str) -> Option<String> {
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
pub fn marks(n: usize, first: usize) -> String {
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
fn runs(mut n: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let size = (1 << n.checked_ilog2()?).min(LONGEST_RUN);
        n -= size;
        Some(size)
    })
}

/// The slice in pieces of [`runs`].
pub(crate) fn in_runs<T>(all: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    runs(all.len()).map(move |run| {
        let (now, later) = rest.split_at(run);
        rest = later;
        now
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
}
