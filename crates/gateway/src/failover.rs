//! Holds: asking one model server after another until one answers.
//!
//! Whether another is asked follows from the failure alone; who has room for it is the scheduler's.

use std::{sync::Arc, time::Duration};

use batchin_scheduler::Gate;
use batchin_upstream::{CallError, CallErrorKind, Replica, Retry};
use tokio::time::{Instant, timeout_at};

use crate::{
    DispatchError, Dispatcher, NoRoom,
    attempt::{RETRY_AFTER, ended, final_error, note_failure},
    dispatch::{Running, Work},
};

/// Upstreams tried for one request: enough to step over two dead ones, few enough that a request that kills servers
/// does not go round them all.
const MAX_ATTEMPTS: usize = 3;

/// What waited in vain for so long may as well wait some more.
const FLEX_RETRY: Duration = Duration::from_secs(30);

/// Why nobody answered.
pub(crate) enum NoAnswer {
    /// Nobody takes it now.
    NoRoom(NoRoom),
    /// Nobody took it for as long as it may wait.
    NotFree,
    /// Those that were asked failed.
    Failed {
        /// What is to be told of it.
        error: CallError,
        /// Every server was asked and failed alike, while they answer others.
        alike: bool,
    },
}

/// The servers that may answer one request, and how those that were asked failed.
pub(crate) struct Failover {
    candidates: Vec<Arc<Replica>>,
    /// Asked where none of the others takes it.
    spare: Vec<Arc<Replica>>,
    work: Work,
    tries: usize,
    servers: usize,
    asked: usize,
    /// Servers that cannot do this with the model.
    unfit: usize,
    last: Option<CallError>,
    alike: bool,
}

/// Who is asked after a failure, and how many tries there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The others.
    Others(usize),
    /// Whoever takes it, this one too.
    Anyone(usize),
    Nobody,
}

/// What follows from a failure where so many others are left, after so many tries before it.
fn next(others: usize, error: &CallError, tries: usize, is_task: bool) -> Next {
    // What the server itself refuses at once costs nothing, and the one that would answer may be the last.
    let tries = tries + usize::from(!error.is_of_server());
    if error.retry == Retry::Never || tries >= MAX_ATTEMPTS {
        Next::Nobody
    } else if was_passed_over(error, is_task) {
        Next::Anyone(tries)
    } else if others > 0 {
        Next::Others(tries)
    } else {
        Next::Nobody
    }
}

/// Another request made the server's trial in between: as a last resort it may still be asked, where somebody waits.
fn was_passed_over(error: &CallError, is_task: bool) -> bool {
    error.kind == CallErrorKind::Unavailable && !is_task
}

impl Failover {
    /// Nobody was asked yet. The second of the lists is asked where none of the first takes it.
    pub(crate) fn new([candidates, spare]: [Vec<Arc<Replica>>; 2], work: Work) -> Self {
        let servers = candidates.len() + spare.len();
        Self { candidates, spare, work, tries: 0, servers, asked: 0, unfit: 0, last: None, alike: true }
    }

    /// Begins on the next one.
    pub(crate) fn begin(&mut self, dispatcher: &Arc<Dispatcher>) -> Result<Running, NoAnswer> {
        self.try_begin(dispatcher).map_err(|gate| self.end(gate))
    }

    /// The same once a gate opens for it, on one of the `servers` as they are then. Where none of them is there, nobody
    /// waits for one.
    pub(crate) async fn begin_in_turn(
        &mut self,
        dispatcher: &Arc<Dispatcher>,
        (model, until): (&str, Instant),
        servers: impl Fn() -> [Vec<Arc<Replica>>; 2],
    ) -> Result<Running, NoAnswer> {
        let place = dispatcher.lines().stand(model);
        while timeout_at(until, place.turn()).await.is_ok() {
            // Those that failed are not to come back.
            if self.asked == 0 {
                [self.candidates, self.spare] = servers();
                self.servers = self.candidates.len() + self.spare.len();
            }
            match self.try_begin(dispatcher) {
                Ok(running) => return Ok(running),
                Err(gate) if !Dispatcher::is_one_up(&self.candidates, self.work) => return Err(self.end(gate)),
                Err(_) => {}
            }
        }
        Err(NoAnswer::NotFree)
    }

    fn try_begin(&mut self, dispatcher: &Arc<Dispatcher>) -> Result<Running, Gate> {
        loop {
            match dispatcher.begin(&self.candidates, self.work) {
                Ok(running) => return Ok(running),
                Err(_) if !self.spare.is_empty() => self.candidates.append(&mut self.spare),
                Err(gate) => return Err(gate),
            }
        }
    }

    /// This one failed: tells the scheduler, counts it, and says whether the next is to be asked. Nobody is for who
    /// `gave_up`.
    pub(crate) fn failed(&mut self, running: Running, error: CallError, gave_up: bool) -> Result<(), NoAnswer> {
        let replica = Arc::clone(&running.replica);
        let outcome = ended(&error, &running);
        running.finish(outcome);
        note_failure(replica.name(), self.work.class, &error);
        let is_other = |other: &Arc<Replica>| other.name() != replica.name();
        let others = self.candidates.iter().chain(&self.spare).filter(|other| is_other(other)).count();
        let next = if gave_up { Next::Nobody } else { next(others, &error, self.tries, self.work.task.is_some()) };
        self.note(&replica, error);
        match next {
            Next::Nobody => return Err(self.end(Gate::Unavailable)),
            Next::Anyone(tries) => self.tries = tries,
            Next::Others(tries) => {
                self.tries = tries;
                self.candidates.retain(is_other);
                self.spare.retain(is_other);
            }
        }
        Ok(())
    }

    fn note(&mut self, replica: &Replica, error: CallError) {
        self.asked += 1;
        self.unfit += usize::from(error.kind == CallErrorKind::Unfit);
        let same = self.last.as_ref().is_none_or(|last| last.kind == error.kind);
        // A server that cannot be reached, a proxy before one that is away, and one with too much to do say nothing of the
        // task.
        let of_task =
            matches!(error.kind, CallErrorKind::Status(500) | CallErrorKind::BadAnswer | CallErrorKind::Timeout);
        self.alike &= same && of_task && replica.answered_lately();
        // That others have too much to do says more than that this one does not have the model.
        let says_less = error.is_of_server() || was_passed_over(&error, self.work.task.is_some());
        if self.last.is_none() || !says_less {
            self.last = Some(error);
        }
    }

    fn end(&mut self, gate: Gate) -> NoAnswer {
        // Of servers that were not asked, some may be able to.
        let others = self.unfit < self.servers;
        let last = self.last.take().filter(|error| !(error.kind == CallErrorKind::Unfit && others));
        match (last, gate) {
            (Some(mut error), _) => {
                // What none of its servers can do with the model is the request's fault.
                if error.kind == CallErrorKind::Unfit {
                    error.retry = Retry::Never;
                }
                NoAnswer::Failed { error, alike: self.alike && self.asked >= self.servers }
            }
            (None, Gate::Unavailable) => {
                let retry_after = Dispatcher::pause(&self.candidates, self.work).unwrap_or(RETRY_AFTER);
                NoAnswer::NoRoom(NoRoom::NoUpstream { retry_after })
            }
            (None, _) => NoAnswer::NoRoom(NoRoom::Busy { retry_after: RETRY_AFTER }),
        }
    }
}

impl From<NoAnswer> for DispatchError {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::NoRoom(none) => none.into(),
            NoAnswer::NotFree => Self::NotFree { retry_after: FLEX_RETRY },
            NoAnswer::Failed { error, .. } => final_error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::{AccountId, Class};

    use super::*;

    fn failure(kind: CallErrorKind, retry: Retry) -> CallError {
        CallError { kind, retry, client_error: None }
    }

    #[test]
    fn another_server_is_asked_where_one_may_answer() {
        let broken = failure(CallErrorKind::Status(500), Retry::OtherReplica);
        let busy = failure(CallErrorKind::Status(429), Retry::Later(Some(Duration::from_secs(9))));
        let at_fault = failure(CallErrorKind::Status(400), Retry::Never);
        let not_there = failure(CallErrorKind::Status(404), Retry::OtherReplica);
        let not_asked = failure(CallErrorKind::Unavailable, Retry::Later(None));
        let unfit = failure(CallErrorKind::Unfit, Retry::OtherReplica);
        for is_task in [false, true] {
            for (others, error, tries, expected) in [
                (2, &broken, 0, Next::Others(1)),
                (1, &broken, 1, Next::Others(2)),
                (1, &broken, 2, Next::Nobody),
                (0, &broken, 0, Next::Nobody),
                (1, &busy, 0, Next::Others(1)),
                (1, &at_fault, 0, Next::Nobody),
                // Refused at once: no try.
                (5, &not_there, 0, Next::Others(0)),
                (5, &not_there, 2, Next::Others(2)),
                (0, &not_there, 0, Next::Nobody),
                (5, &unfit, 2, Next::Others(2)),
                (1, &not_asked, 2, Next::Nobody),
            ] {
                assert_eq!(next(others, error, tries, is_task), expected, "{others} {error:?} {tries}");
            }
        }
        // Who waits asks it again, though it be the only one; a task comes back later.
        assert_eq!(next(0, &not_asked, 0, false), Next::Anyone(1));
        assert_eq!(next(2, &not_asked, 1, false), Next::Anyone(2));
        assert_eq!(next(0, &not_asked, 0, true), Next::Nobody);
        assert_eq!(next(2, &not_asked, 1, true), Next::Others(2));
    }

    #[test]
    fn a_request_is_at_fault_only_where_none_of_the_servers_can_do_it() {
        let account = AccountId::new(Default::default());
        let work = Work {
            class: Class::Low,
            prompt_bound: 1,
            expected: 1,
            beginning: None,
            task: None,
            unseen: false,
            account,
        };
        let ended = |unfit, servers, gate| {
            let mut failover = Failover::new([Vec::new(), Vec::new()], work);
            (failover.unfit, failover.servers) = (unfit, servers);
            failover.last = Some(failure(CallErrorKind::Unfit, Retry::OtherReplica));
            failover.end(gate)
        };
        assert!(
            matches!(ended(2, 2, Gate::Unavailable), NoAnswer::Failed { error, .. } if error.retry == Retry::Never)
        );
        assert!(matches!(ended(1, 2, Gate::Slots), NoAnswer::NoRoom(NoRoom::Busy { .. })));
        assert!(matches!(ended(1, 2, Gate::Unavailable), NoAnswer::NoRoom(NoRoom::NoUpstream { .. })));
    }
}
