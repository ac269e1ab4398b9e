//! Holds: whether an upstream that failed is asked again, and when.
//!
//! A pure state machine: `(state, event, now) → state`. Chance is an argument, too.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker: two may be chance, e.g. a restart between pooled connections.
const FAILURES_TO_OPEN: u32 = 3;

/// First probation; each failed trial doubles it.
const FIRST_PROBATION: Duration = Duration::from_secs(1);

/// Longest probation, so that a server that was away for a day is found within a minute.
const LONGEST_PROBATION: Duration = Duration::from_secs(60);

/// Pause after an overload without `retry-after`. Short: the scheduler lowers its own limit as well.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause that a server can ask for; OpenAI's clients obey no longer one either.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What is believed about an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// It works, as far as is known.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// It asked to be left alone for a while.
    Cooling {
        /// When it may be asked again.
        until: Instant,
        /// Failures before the pause.
        failures: u32,
    },
    /// It failed repeatedly.
    Open {
        /// When a trial may be made.
        until: Instant,
        /// Probations in a row.
        strikes: u32,
    },
    /// One trial is under way.
    Trying {
        /// Probations in a row.
        strikes: u32,
    },
}

/// How a call ended, as far as the upstream's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered; a refusal that is the client's fault counts, too.
    Success,
    /// It could not be reached, broke off, or failed.
    Failure,
    /// It has too much to do.
    Overloaded {
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// The trial was given up by us.
    Abandoned,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Yes,
    /// Yes, and it decides about the upstream: its outcome must be reported.
    Trial,
    /// No; there is no use asking before this time.
    No {
        /// When to ask again; `None` while a trial is under way.
        until: Option<Instant>,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a call may be made now, and the state if it is made.
    pub fn admit(self, now: Instant) -> (Self, Admission) {
        match self {
            Breaker::Closed { .. } => (self, Admission::Yes),
            Breaker::Cooling { until, failures } if until <= now => (Breaker::Closed { failures }, Admission::Yes),
            Breaker::Open { until, strikes } if until <= now => (Breaker::Trying { strikes }, Admission::Trial),
            Breaker::Cooling { until, .. } | Breaker::Open { until, .. } => {
                (self, Admission::No { until: Some(until) })
            }
            Breaker::Trying { .. } => (self, Admission::No { until: None }),
        }
    }

    /// The state after a call ended. `chance` is uniform over `u32` and spreads the probations of many nodes.
    ///
    /// While the breaker is open, the outcomes of calls from before are ignored.
    pub fn after(self, outcome: Outcome, now: Instant, chance: u32) -> Self {
        match (self, outcome) {
            (Breaker::Open { .. }, _) => self,
            (Breaker::Trying { strikes }, Outcome::Abandoned) => Breaker::Open { until: now, strikes },
            (_, Outcome::Abandoned) => self,
            (Breaker::Cooling { .. }, Outcome::Success) => self,
            (_, Outcome::Success) => Breaker::Closed { failures: 0 },
            (Breaker::Trying { strikes }, Outcome::Failure) => open(strikes.saturating_add(1), now, chance),
            (Breaker::Closed { failures }, Outcome::Failure) if failures + 1 >= FAILURES_TO_OPEN => {
                open(0, now, chance)
            }
            (Breaker::Closed { failures }, Outcome::Failure) => Breaker::Closed { failures: failures + 1 },
            (Breaker::Cooling { until, failures }, Outcome::Failure) => {
                if failures + 1 >= FAILURES_TO_OPEN {
                    open(0, now, chance)
                } else {
                    Breaker::Cooling { until, failures: failures + 1 }
                }
            }
            (Breaker::Cooling { until, failures }, Outcome::Overloaded { retry_after }) => {
                Breaker::Cooling { until: until.max(now + pause(retry_after)), failures }
            }
            (Breaker::Closed { .. } | Breaker::Trying { .. }, Outcome::Overloaded { retry_after }) => {
                Breaker::Cooling { until: now + pause(retry_after), failures: 0 }
            }
        }
    }
}

fn pause(asked: Option<Duration>) -> Duration {
    asked.map_or(OVERLOAD_PAUSE, |asked| asked.min(LONGEST_PAUSE))
}

/// Probation of 75 to 125 % of its nominal length.
fn open(strikes: u32, now: Instant, chance: u32) -> Breaker {
    let nominal = FIRST_PROBATION.saturating_mul(1_u32 << strikes.min(16)).min(LONGEST_PROBATION);
    let spread = (nominal / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX));
    Breaker::Open { until: now + nominal * 3 / 4 + spread, strikes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIDDLE: u32 = u32::MAX / 2;

    fn failed(mut breaker: Breaker, times: u32, now: Instant) -> Breaker {
        for _ in 0..times {
            breaker = breaker.after(Outcome::Failure, now, MIDDLE);
        }
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let now = Instant::now();
        let two = failed(Breaker::default(), 2, now);
        assert_eq!(two.admit(now).1, Admission::Yes);
        assert_eq!(two.after(Outcome::Success, now, 0), Breaker::default());
        assert!(matches!(failed(two, 1, now).admit(now).1, Admission::No { until: Some(_) }));
    }

    #[test]
    fn one_trial_decides_and_probation_doubles_up_to_a_minute() {
        let mut now = Instant::now();
        let mut breaker = failed(Breaker::default(), 3, now);
        for strikes in 0..12_u32 {
            let Breaker::Open { until, .. } = breaker else { panic!("{breaker:?}") };
            let nominal = Duration::from_secs(1 << strikes.min(10)).min(LONGEST_PROBATION);
            let probation = until - now;
            assert!(probation.abs_diff(nominal) < Duration::from_millis(10), "{strikes}: {probation:?}");
            now = until;
            let (trying, admission) = breaker.admit(now);
            assert_eq!(admission, Admission::Trial);
            assert_eq!(trying.admit(now).1, Admission::No { until: None });
            breaker = trying.after(Outcome::Failure, now, MIDDLE);
        }
        let Breaker::Open { until, .. } = breaker else { panic!("{breaker:?}") };
        let recovered = breaker.admit(until).0.after(Outcome::Success, until, 0);
        assert_eq!(recovered, Breaker::default());
    }

    #[test]
    fn trial_given_up_may_be_made_again() {
        let now = Instant::now();
        let Breaker::Open { until, .. } = failed(Breaker::default(), 3, now) else { panic!("closed") };
        let trying = Breaker::Open { until, strikes: 4 }.admit(until).0;
        assert_eq!(trying.after(Outcome::Abandoned, until, 0).admit(until).1, Admission::Trial);
    }

    #[test]
    fn overload_pauses_as_asked_within_bounds() {
        let now = Instant::now();
        let pause = |seconds: Option<u64>| {
            let outcome = Outcome::Overloaded { retry_after: seconds.map(Duration::from_secs) };
            match Breaker::default().after(outcome, now, 0) {
                Breaker::Cooling { until, .. } => until - now,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(pause(None), OVERLOAD_PAUSE);
        assert_eq!(pause(Some(7)), Duration::from_secs(7));
        assert_eq!(pause(Some(100_000)), LONGEST_PAUSE);
        let cooling = Breaker::Cooling { until: now + OVERLOAD_PAUSE, failures: 0 };
        assert!(matches!(cooling.admit(now).1, Admission::No { .. }));
        assert_eq!(cooling.admit(now + OVERLOAD_PAUSE).1, Admission::Yes);
        assert_eq!(cooling.after(Outcome::Success, now, 0), cooling);
    }

    proptest! {
        #[test]
        fn it_never_locks_up_nor_makes_two_trials(steps in prop::collection::vec((0..5_u8, 0..90_u64, any::<u32>()), 0..60)) {
            let (mut breaker, mut now, mut trying) = (Breaker::default(), Instant::now(), false);
            for (step, seconds, chance) in steps {
                now += Duration::from_secs(seconds);
                if step == 0 {
                    let (next, admission) = breaker.admit(now);
                    prop_assert!(!(trying && admission == Admission::Trial));
                    trying |= admission == Admission::Trial;
                    breaker = next;
                    continue;
                }
                let outcome = [Outcome::Success, Outcome::Failure, Outcome::Overloaded { retry_after: None }, Outcome::Abandoned];
                let outcome = outcome[usize::from(step - 1)];
                trying = false;
                breaker = breaker.after(outcome, now, chance);
            }
            if !matches!(breaker, Breaker::Trying { .. }) {
                let later = now + LONGEST_PAUSE + LONGEST_PROBATION * 2;
                let shut = matches!(breaker.admit(later).1, Admission::No { .. });
                prop_assert!(!shut, "{:?}", breaker);
            }
        }
    }
}
