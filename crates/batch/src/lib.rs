//! Holds: answering later: intake → claim → execute → assemble.
//!
//! Tasks run through the gateway's pipeline like any request, at their class's price and after interactive ones. A task
//! finishes exactly once: its result, its charge and its end are one transaction under the claim's epoch.

mod blobs;
mod depth;
mod intake;
mod outcome;
mod results;
mod submit;
mod worker;

pub use blobs::{BlobError, Blobs, OpenBlobsError};
pub use intake::{MAX_FAULTS, MAX_TASKS, Order, TaskFault};
pub use submit::{Batches, Remember, SubmitError};
pub use worker::{Worker, WorkerOptions};
