//! Holds: what must be remembered, as business verbs that are one whole transaction each.
//!
//! The only crate that knows the tables. One implementation serves SQLite and PostgreSQL; what differs stands in `db`.
//! No verb awaits the network with a transaction open, none reads a clock: time and ids are arguments.
//!
//! Rows are locked in one order, so that no two verbs wait for each other: node, file, task, batch, webhook_delivery,
//! account, purse, lease; rows of one table in the order of their keys.

mod accounts;
mod agreement;
mod batches;
mod check;
mod chores;
mod claims;
mod commit;
mod endings;
mod fence;
mod file_claims;
mod files;
mod handle;
mod idempotency;
mod keys;
mod leases;
mod nodes;
mod openings;
mod prices;
mod retention;
mod schema;
mod sessions;
mod settle;
mod stored;
mod task_ends;
mod usage;
mod waiting;
mod webhook_deliveries;
mod webhook_log;
mod webhook_secrets;
mod webhooks;

pub use batchin_db::{DbError as StoreError, OpenError as ConnectError, Options as ConnectOptions, Outage};

pub use accounts::{CorrectError, CreateUserError, CreditGrant, Credited, GrantError, NewUser, Role, User};
pub use batches::{BatchRow, BatchTerms, BatchTimes, TaskRow, TaskUsage};
pub use check::{CheckReport, Fault};
pub use chores::{BatchFiles, ChoreError, Piece};
pub use claims::{Backlog, Claim, ClaimedTask, Probe, Promotable, Requeue, Share};
pub use commit::{CommitError, Committer, CommitterOptions, OnFailure};
pub use endings::{CancelError, Cancelled};
pub use fence::{FencedError, NodeIdentity};
pub use file_claims::{ClaimFileError, FileBounds, FileRoom};
pub use files::{
    DeleteFileError, DueFile, FileContent, FileDetails, FileOrder, FilePage, FileRow, FinishFileError, NewFile,
};
pub use handle::Store;
pub use idempotency::{Begun, IdempotencyScope, StoredAnswer};
pub use keys::{KeyChange, KeyRecord, KeyRow, NewKey, UpdateKeyError};
pub use leases::{LeaseAsk, LeaseOutcome};
pub use nodes::Reclaimed;
pub use openings::{CreateBatchError, NewBatch, NewTask, NewTasks};
pub use prices::{PriceList, PriceListRow};
pub use sessions::SessionRow;
pub use settle::{Outcome, Settlement, UsageMarks, UsageRecord};
pub use task_ends::{BlobRange, StoredResult, TaskEnd, TaskError, TaskFinish};
pub use usage::{Bucket, ModelTotals, Page, Totals, UsageFilter, UsageRow};
pub use waiting::{MoneyWait, Unpaid, WAITS_FOR_BALANCE, WAITS_FOR_BUDGET, WAITS_FOR_CAP};
pub use webhook_deliveries::{ClaimedDelivery, DeliveryRoom, EndpointId, FinishedTry};
pub use webhook_log::{DeliveryError, DeliveryFilter, DeliveryRow, TryRow};
pub use webhook_secrets::SealedSecret;
