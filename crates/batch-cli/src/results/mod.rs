//! Holds: results on their way from the server to a file or to a person.

mod answer;
mod seen;
mod sink;

pub(super) use seen::{LineHead, Seen};
pub use sink::OutError;
pub(super) use sink::{Form, OutFile, Sink, Target};
