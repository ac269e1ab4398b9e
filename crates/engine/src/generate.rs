//! Holds: text generation with one model: many sequences decoded together by one thread.
//!
//! The HTTP side hands over finished [`Sequence`]s and reads [`Event`]s; it never touches the context.

mod prefix;
mod queue;
mod sampler;
mod sequence;
mod worker;

pub(crate) use queue::Queue;
pub(crate) use sampler::{Sampler, SamplingParams};
pub(crate) use sequence::{Cancelled, Event, Finish, Sequence, Sink, TextOut, TokenLogprob, Usage};
pub(crate) use worker::{Worker, WorkerSettings};

/// Who goes first. The order of the variants is the order of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Somebody is waiting for it.
    #[default]
    Interactive,
    /// Batch work with a deadline.
    High,
    /// Batch work.
    Low,
    /// Whatever fits into free capacity.
    Fill,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Interactive, Self::High, Self::Low, Self::Fill];

    /// The class with this name on the wire.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "interactive" => Some(Self::Interactive),
            "high" => Some(Self::High),
            "low" => Some(Self::Low),
            "fill" => Some(Self::Fill),
            _ => None,
        }
    }
}
