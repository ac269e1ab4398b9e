//! Holds: transactions on either database, SQLite or PostgreSQL.
//!
//! It knows no table. SQLite has one connection that writes and a few that read; PostgreSQL a pool, whose statements stay
//! prepared and are sent one behind the other where they are awaited together.

mod dialect;
mod error;
mod open;
mod postgres;
mod retry;
mod row;
mod schema;
mod source;
mod sqlite;
mod tls;
mod tx;
mod value;
mod writes;

use dialect::in_runs;
pub use dialect::{Dialect, marks};
pub use error::{DbError, Outage, both, exactly};
pub use open::{Db, OpenError, Options};
pub use retry::{Rerun, retried};
pub use row::{Column, Row};
pub use source::{Source, Target, columns_of};
pub use tx::{Snapshot, WriteTx};
pub use value::Value;
