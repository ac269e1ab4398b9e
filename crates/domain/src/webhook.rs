//! Holds: what is true about telling customers of events: what there is to tell, to which addresses, and how often it
//! is tried.

mod address;
mod event;
mod schedule;
mod target;

pub use address::is_public;
pub use event::{DeliveryState, EventId, EventKind, FailureKind};
pub use schedule::{MAX_TRIES, Next, TryResult, after_try};
pub use target::{MAX_URL_BYTES, TargetFault, TargetPolicy, Url, mail_address, mail_to, origin, without_secrets};
