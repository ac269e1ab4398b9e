//! Holds: what must be remembered, as business verbs that are one whole transaction each.
//!
//! The only crate that knows SQL. One implementation serves SQLite and PostgreSQL; what differs stands in [`dialect`].
//! No verb awaits the network with a transaction open, none reads a clock: time and ids are arguments.

mod accounts;
mod batches;
mod check;
mod claims;
mod commit;
mod connect;
mod dialect;
mod error;
mod idempotency;
mod keys;
mod leases;
mod nodes;
mod own;
mod prices;
mod row;
mod schema;
mod sessions;
mod settle;
mod tx;
mod usage;

pub use accounts::{CreateUserError, CreditGrant, Credited, GrantError, NewUser, Role, User};
pub use batches::{BatchRow, CancelError, Cancelled, CreateBatchError, NewBatch, NewTask, TaskRow, TaskUsage};
pub use check::{CheckReport, Fault};
pub use claims::{Claim, ClaimedTask, Requeue};
pub use commit::{CommitError, Committer, CommitterOptions};
pub use connect::{ConnectError, ConnectOptions, Store};
pub use error::StoreError;
pub use idempotency::{Begun, IdempotencyScope};
pub use keys::{KeyChange, KeyRecord, KeyRow, NewKey, UpdateKeyError};
pub use leases::{LeaseAsk, LeaseOutcome};
pub use nodes::{FencedError, NodeIdentity, Reclaimed};
pub use prices::PriceListRow;
pub use sessions::SessionRow;
pub use settle::{BlobRange, Outcome, Settlement, StoredAnswer, TaskEnd, TaskFinish, UsageRecord};
pub use usage::{Bucket, ModelTotals, Page, Totals, UsageFilter, UsageRow};
