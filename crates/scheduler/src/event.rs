//! Holds: what the scheduler is told and what it asks for.

use std::time::Duration;

use batchin_domain::{Class, TaskId};

/// One upstream replica; the number is the caller's and must keep its meaning across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u32);

/// One request in flight; the caller numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What is known about a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name.
    pub id: ReplicaId,
    /// Requests that it decodes at once; `None` while unknown, zero counts as unknown.
    pub slots: Option<u32>,
    /// Whether it computes on a CPU.
    pub cpu: bool,
    /// Whether closing the connection is known to stop its work; where it is not, nothing is ever preempted.
    pub cancels: bool,
}

/// What began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The caller's number for it.
    pub ticket: Ticket,
    /// Where it runs.
    pub replica: ReplicaId,
    /// Its class.
    pub class: Class,
    /// Upper bound of its prompt's tokens.
    pub prompt_bound: u32,
    /// Tokens of prompt and answer that it will take, roughly: what a replica still has to do is compared by them.
    pub expected: u32,
    /// The batch task that it is an attempt of; preemptions are counted by it, and without one they have no bound.
    pub task: Option<TaskId>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Refused with 429 or 503.
    Overloaded {
        /// What the upstream asked for.
        retry_after: Option<Duration>,
    },
    /// Ran out of time.
    Timeout,
    /// Any other error.
    Failed,
    /// The caller stopped it, also when an [`Action::Cancel`] did.
    Cancelled,
}

/// What happened. Events about unknown tickets and replicas are ignored: the last bytes of a request may overtake its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request was sent. Send it in the same critical section as the decision, or two callers get the same slot.
    Started(Start),
    /// Its answer will come in one piece, long after its first token. Send it right after `Started`; it counts as
    /// waiting for its first byte only for as long as others lately waited there.
    Unseen(Ticket),
    /// Its first byte arrived.
    FirstByte(Ticket),
    /// A later chunk arrived.
    Chunk {
        /// Whose.
        ticket: Ticket,
        /// Time since the chunk before; `None` where the reader was held up, which says nothing about the engine.
        gap: Option<Duration>,
        /// Tokens in it.
        tokens: u32,
    },
    /// It ended and its connection is closed.
    Done {
        /// Which.
        ticket: Ticket,
        /// How.
        outcome: Outcome,
    },
    /// [`crate::Scheduler::next_deadline`] has come.
    Tick,
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the connection of this fill task, requeue it, and report `Done` with [`Outcome::Cancelled`].
    Cancel(Ticket),
}
