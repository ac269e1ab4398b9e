//! Holds: what is true, whoever asks: ids, time, money, calls, prices, limits, states.
//!
//! Pure: no IO, no clock, no randomness, no async. Every rule here is a function of its arguments, so the same code
//! runs in production, in property tests and in simulations.

pub mod audit;
pub mod batch;
pub mod call;
pub mod class;
pub mod clock;
pub mod escrow;
pub mod file;
pub mod film;
pub mod id;
pub mod ledger;
mod listed;
pub mod measure;
pub mod money;
pub mod price;
pub mod purse;
pub mod stored;
pub mod text;
pub mod time;
pub mod topup;
pub mod webhook;

pub use audit::AuditKind;
pub use batch::{BatchStatus, Chore, Ending, TaskStatus, Window};
pub use call::{CallKind, Capability, Makes};
pub use class::{Class, Priority};
pub use clock::{Clock, IdSource};
pub use file::FilePurpose;
pub use film::{AspectRatio, FilmFile, FilmStatus, FilmStyle, Frame};
pub use id::{AccountId, AuditId, BatchId, FileId, KeyId, NodeId, RequestId, TaskId, TopupId, TransferId, VideoId};
pub use measure::{Counts, Measure};
pub use money::{Amount, Balance};
pub use price::{ClassPrices, PriceVersion, Rate, Tariff};
pub use purse::{Purse, PurseKind, Quantity};
pub use time::{Minute, Month, Timestamp};
pub use topup::{DepositStatus, TopupSource, TopupStatus};
