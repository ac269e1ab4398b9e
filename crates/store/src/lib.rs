//! Holds: what must be remembered, as business verbs that are one whole transaction each.
//!
//! The only crate that knows the tables. One implementation serves SQLite and PostgreSQL; what differs stands in `db`.
//! No verb awaits the network with a transaction open, none reads a clock: time and ids are arguments.
//!
//! Rows are locked in one order, so that no two verbs wait for each other: node, file, task, video_job, batch, webhook_delivery,
//! chain_state, deposit, topup, account, purse, lease, audit_log; rows of one table in the order of their keys.
//!
//! Its parts stand in an order too, and take only from those before them: `fence`, `waking`, `accounts`, `outbox`,
//! `alerts`, `money`, `audit`, `inference`, `statements`, `files`, `file_claims`, `queue`, `films`, `drains`, `commit`, `nodes`, `check`. Rows of
//! several parts meet in `statements`, in `commit` and above.

mod accounts;
mod agreement;
mod alerts;
mod audit;
mod check;
mod commit;
mod drains;
mod fence;
mod file_claims;
mod files;
mod films;
mod handle;
mod inference;
mod money;
mod nodes;
mod outbox;
mod queue;
mod schema;
mod statements;
mod stored;
mod waking;

pub use batchin_db::{DbError as StoreError, OpenError as ConnectError, Options as ConnectOptions, Outage};

pub use accounts::keys::{KeyChange, KeyRecord, KeyRow, NewKey, UpdateKeyError};
pub use accounts::sessions::SessionRow;
pub use accounts::users::{CreateUserError, NewUser, Role, User};
pub use accounts::{Accounts, Keys};
pub use agreement::Agreement;
pub use alerts::{AlertSettings, Alerts};
pub use audit::AuditRows;
pub use audit::entries::{AuditEntry, AuditKey};
pub use audit::log::AuditLog;
pub use check::{CheckReport, Fault};
pub use commit::settlement::Settlement;
pub use commit::{CommitError, Committer, CommitterOptions, Ledger, OnFailure};
pub use drains::{Drain, Drains};
pub use fence::{FencedError, NodeIdentity};
pub use file_claims::{ClaimFileError, FileBounds, FileRoom};
pub use files::{
    DeleteFileError, DueFile, FileContent, FileDetails, FileOrder, FilePage, FileRow, FileRows, FinishFileError,
    NewFile,
};
pub use films::claims::{ClaimedFilm, FilmClaim, FilmReturn, LeftFilm};
pub use films::rows::{FilmPage, NewFilm};
pub use films::{FilmClaims, FilmError, FilmFinish, FilmOrder, FilmPlace, FilmRow, FilmRows, StoredFilm};
pub use handle::{Pulse, Store};
pub use inference::idempotency::{Begun, IdempotencyScope, StoredAnswer};
pub use inference::record::{Outcome, UsageMarks, UsageRecord};
pub use inference::usage::{Bucket, ModelTotals, Page, Totals, UsageFilter, UsageRow};
pub use inference::voices::{KeepVoiceError, MAX_VOICES, NewVoice, VoiceRow, VoiceSound};
pub use inference::{Answers, Usage, Voices};
pub use money::addresses::DepositAddress;
pub use money::admin_log::{AdminAction, AdminLog, WantedActions};
pub use money::auto::{AutoTopup, AutoTopups, AutoWish, SavedForAuto};
pub use money::credit::{CorrectError, CreditGrant, GrantError};
pub use money::deposit_credits::DepositCredit;
pub use money::deposits::{ChainProgress, DepositError, DepositRow, Deposits, SeenDeposit};
pub use money::history::{Credited, Standing};
pub use money::inbox::{DueStripeEvent, Inbox, NewStripeEvent};
pub use money::leases::{LeaseAsk, LeaseOutcome};
pub use money::prices::{PriceList, PriceListRow};
pub use money::scans::{ChainEvent, ChainRestart, ChainScan, RestartedPayments};
pub use money::topups::{
    Entry, NewTopup, OpenTopupError, Reading, SettleTopupError, Settled, TopupDetails, TopupKey, TopupRow,
};
pub use money::{Balances, Credit, Prices, Purses, Topups};
pub use nodes::{Nodes, Reclaimed};
pub use outbox::deliveries::{ClaimedDelivery, DeliveryRoom, EndpointId, FinishedTry};
pub use outbox::log::{DeliveryError, DeliveryFilter, DeliveryRow, TryRow};
pub use outbox::secrets::SealedSecret;
pub use outbox::{DeliveryLog, Outbox};
pub use queue::batches::{BatchRow, BatchTerms, BatchTimes, TaskRow, TaskUsage};
pub use queue::chores::{BatchFiles, ChoreError, MovedResult, Piece};
pub use queue::claims::{Backlog, Claim, ClaimedTask, Place, Probe, Promotable, Requeue, Share};
pub use queue::endings::{CancelError, Cancelled};
pub use queue::openings::{CreateBatchError, NewBatch, NewTask, NewTasks};
pub use queue::task_ends::{BlobRange, StoredResult, TaskEnd, TaskError, TaskFinish};
pub use queue::waiting::{MoneyWait, Unpaid, WAITS_FOR_CAP};
pub use queue::{BatchRows, Chores, Claims, Endings, Openings};
pub use statements::{
    PaymentLinks, Statement, StatementHolder, StatementMonth, StatementMovement, StatementUsage, Statements,
};
pub use waking::{WAITS_FOR_BALANCE, WAITS_FOR_BUDGET};
