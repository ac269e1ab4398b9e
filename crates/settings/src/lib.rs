//! Holds: settings of any program, declared once, read with every fault in its place.
//!
//! Serves any program: it knows no setting by name, and never says what a value is for.

mod document;
mod environment;
mod example;
mod fault;
mod nearest;
mod reader;
mod schema;
mod setting;
mod written;

pub use document::Document;
pub use environment::Environment;
pub use fault::{Collector, Fault, FaultKind, Faults, Place};
pub use nearest::nearest;
pub use reader::Scope;
pub use schema::{Schema, Section};
pub use setting::{Kind, Preset, Setting};
pub use written::Written;

#[cfg(test)]
mod tests;
