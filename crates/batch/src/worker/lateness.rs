//! Holds: how many tasks run at once while people are served by the same process, by how late it is itself.
//!
//! What protects people at a model server does not protect them here: tasks that no server finds heavy can still take
//! all of this machine's processor. When this process is late, each of a request's steps waits behind tasks' steps.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use batchin_gateway::Gateway;
use metrics::gauge;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Between two looks: short enough to give way before a person notices, rare enough to cost nothing.
const LOOK: Duration = Duration::from_millis(50);
/// Woken so late, a step waited behind others. A request has some ten steps; timers alone are late by a millisecond.
const LATE: Duration = Duration::from_millis(8);
/// Of what may run, a late look takes this part and a punctual one gives back that part of all: it settles where one
/// look in five is late, and is back at all within a second.
const TAKEN: usize = 4;
const GIVEN: usize = 16;
/// This part of all goes on whatever happens.
const LEAST: usize = 16;
/// Looks without a person after which all may run again: two seconds.
const FORGOTTEN: u32 = 40;

/// The rule, told what each look showed.
struct Rule {
    all: usize,
    limit: usize,
    /// Looks since there was a person.
    alone: u32,
}

impl Rule {
    fn new(all: usize) -> Self {
        Self { all, limit: all, alone: FORGOTTEN }
    }

    /// `late` is how late the look was, `people` whether there were any since the last, `running` how many tasks run.
    /// How many may.
    fn look(&mut self, late: Duration, people: bool, running: usize) -> usize {
        self.alone = if people { 0 } else { self.alone.saturating_add(1) };
        let least = (self.all / LEAST).max(1);
        self.limit = if self.alone >= FORGOTTEN {
            self.all
        } else if late > LATE {
            let used = self.limit.min(running);
            (used - used / TAKEN).clamp(least.min(self.limit), self.limit)
        } else {
            (self.limit + (self.all / GIVEN).max(1)).min(self.all)
        };
        self.limit
    }
}

/// How many tasks may run, kept up to date by a task of its own.
pub(super) struct Lateness {
    limit: AtomicUsize,
}

impl Lateness {
    /// While nobody else is here, so many.
    pub fn new(all: usize) -> Self {
        Self { limit: AtomicUsize::new(all) }
    }

    /// How many may run now.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Looks until the end; `running` says how many tasks run.
    pub async fn watch(&self, gateway: &Gateway, running: impl Fn() -> usize, stop: CancellationToken) {
        let mut rule = Rule::new(self.limit());
        let mut begun = gateway.dispatcher().people().0;
        loop {
            let before = Instant::now();
            if stop.run_until_cancelled(sleep(LOOK)).await.is_none() {
                return;
            }
            let late = before.elapsed().saturating_sub(LOOK);
            let (now_begun, in_flight) = gateway.dispatcher().people();
            let people = in_flight || now_begun != begun;
            begun = now_begun;
            let limit = rule.look(late, people, running());
            self.limit.store(limit, Ordering::Relaxed);
            gauge!("batchin_batch_tasks_allowed").set(limit as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUNCTUAL: Duration = Duration::from_millis(1);
    const VERY_LATE: Duration = Duration::from_millis(80);

    #[test]
    fn without_people_all_may_run_however_late() {
        let mut rule = Rule::new(256);
        for _ in 0..100 {
            assert_eq!(rule.look(VERY_LATE, false, 256), 256);
        }
    }

    #[test]
    fn tasks_give_way_to_people_at_once_and_never_stop() {
        let mut rule = Rule::new(256);
        let limits: Vec<usize> = (0..20).map(|_| rule.look(VERY_LATE, true, 256)).collect();
        assert_eq!(limits[..3], [192, 144, 108]);
        assert_eq!(limits[19], 16);
        assert_eq!(Rule::new(1).look(VERY_LATE, true, 1), 1);
    }

    #[test]
    fn what_runs_counts_and_not_what_could() {
        let mut rule = Rule::new(256);
        assert_eq!(rule.look(VERY_LATE, true, 40), 30);
    }

    #[test]
    fn a_punctual_process_has_all_again_within_a_second() {
        let mut rule = Rule::new(256);
        (0..20).for_each(|_| _ = rule.look(VERY_LATE, true, 256));
        let limits: Vec<usize> = (0..20).map(|_| rule.look(PUNCTUAL, true, 16)).collect();
        assert!(limits.is_sorted());
        assert_eq!((limits[0], limits[19]), (32, 256));
    }

    #[test]
    fn who_left_two_seconds_ago_is_waited_for_no_more() {
        let mut rule = Rule::new(256);
        (0..20).for_each(|_| _ = rule.look(VERY_LATE, true, 256));
        let limits: Vec<usize> = (0..40).map(|_| rule.look(VERY_LATE, false, 16)).collect();
        assert_eq!((limits[38], limits[39]), (16, 256));
    }
}
