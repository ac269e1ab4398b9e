//! Holds: who runs next, where.
//!
//! Pure state machines: `(state, event, now) → actions`. No clock, no IO, no async, no randomness, so the same code runs
//! in production, in simulations and under property tests. Time must come from a clock that never goes back.
//!
//! [`Scheduler`] owns one state per upstream replica: who is in flight, which gates are open for batch work, how much of
//! it the replica bears, and whom to cancel for a waiting person. [`Queue`] orders the batch work of one model.

mod affinity;
mod baseline;
mod cool_down;
mod deadline;
mod event;
mod first_bytes;
mod gate;
mod limit;
mod policy;
mod preempt;
mod queue;
mod replica;
mod scheduler;
mod share;
mod window;

pub use affinity::Affinity;
pub use deadline::must_hurry;
pub use event::{Action, Event, Outcome, ReplicaId, ReplicaSpec, Start, Ticket};
pub use gate::Gate;
pub use policy::Policy;
pub use queue::{Entry, MAX_PASSED_OVER, MAX_QUEUED, Place, Popped, QUANTUM, Queue, QueueFull, Verdict, cost_units};
pub use replica::ReplicaView;
pub use scheduler::{Near, Scheduler};
pub use share::{Shares, Waiting, shares};
