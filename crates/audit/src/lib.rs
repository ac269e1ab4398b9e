//! Holds: keeping the audit log: records are signed and written, get their places in its tree, and the tree is signed and
//! published.
//!
//! The store has the one tree; any number of nodes extend it, one at a time, and sign only what is committed. What a node has
//! signed it remembers beside the database as well: one that was put back to an earlier day is not signed on from.

mod audit;
mod log;
mod memory;
mod records;
mod rotate;
mod sequencer;
mod signing;

pub use audit::{Audit, AuditParts, OpenAuditError};
pub use log::{LogError, ShownKey};
pub use memory::Memory;
pub use records::{Asserted, Receipt, RecordError};
pub use rotate::RotateError;
pub use signing::Signers;
