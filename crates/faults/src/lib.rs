//! Holds: the faults that a test asks a process for: its death at a named point, a clock that is ahead.
//!
//! Only tests turn the feature `enabled` on. Without it a point is nothing, the clock is right, and no plan is taken.

use std::time::Duration;

/// Whether this build takes plans.
pub const ENABLED: bool = cfg!(feature = "enabled");

/// Where a process is to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The name of the point.
    pub point: String,
    /// Which time that it is reached, from one.
    pub hit: u32,
}

/// What a process is asked for, once, before it does anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where it is to die, if it is.
    pub death: Option<Death>,
    /// How far its clock is ahead of the machine's.
    pub clock_ahead: Duration,
}

/// Takes the process's plan; a second one changes nothing.
pub fn plan(plan: Plan) {
    planned::plan(plan);
}

/// A place between two outside effects. The process dies here, as by `kill -9`, if its plan says so.
#[inline]
pub fn point(name: &'static str) {
    planned::point(name);
}

/// How far the clock is ahead.
#[inline]
pub fn clock_ahead() -> Duration {
    planned::clock_ahead()
}

#[cfg(feature = "enabled")]
mod planned;

#[cfg(not(feature = "enabled"))]
mod planned {
    use std::time::Duration;

    use crate::Plan;

    pub(crate) fn plan(_: Plan) {}

    #[inline]
    pub(crate) fn point(_: &'static str) {}

    #[inline]
    pub(crate) fn clock_ahead() -> Duration {
        Duration::ZERO
    }
}
