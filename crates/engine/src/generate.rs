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
