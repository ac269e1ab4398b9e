//! Holds: one call's place at its server: what becomes of it is told once, and the place is given back.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{MAX_REFUSAL_BYTES, Replica, collect};
use crate::{
    breaker::{Outcome, Ticket},
    call::CallError,
    transport::AnswerBody,
};

/// How long a body may take to end after its last event. Opening a connection costs less than waiting longer.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// A call under way. It counts while it lives and reports how the call went exactly once.
pub(crate) struct Lease {
    pub(super) replica: Arc<Replica>,
    pub(super) ticket: Ticket,
    pub(super) began: bool,
    pub(super) settled: bool,
}

impl Lease {
    pub(crate) fn succeeded(&mut self) {
        self.settle(Outcome::Answered);
        self.replica.meters.succeeded();
    }

    pub(crate) fn failed(&mut self, error: &CallError) {
        self.settle(error.outcome());
        self.replica.meters.failed(error);
    }

    pub(crate) fn stream_broke(&mut self) {
        self.settle(Outcome::Failed);
        self.replica.meters.stream_broke();
    }

    /// A stream's first event closes a breaker that is open: waiting for its end would keep the server shut for minutes.
    pub(crate) fn began(&mut self) {
        if self.ticket.trial || self.replica.breaker().shut().is_some() {
            self.began = true;
            self.replica.note(self.ticket, Outcome::Answered);
        }
    }

    /// Reads a finished stream's body to its end, so that its connection can be used again.
    pub(crate) fn drain(&self, body: AnswerBody) {
        // A stream can be dropped after its runtime; then there is no connection left to save.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.replica.tasks.spawn("upstream_drain", |stop| async move {
            let drained = collect(body, MAX_REFUSAL_BYTES, DRAIN_PATIENCE);
            // When it does not end, the connection is closed instead; nothing is lost either way.
            drop(stop.run_until_cancelled(drained).await);
        });
    }

    fn settle(&mut self, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            self.replica.note(self.ticket, outcome);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("upstream", &self.replica.config.name).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            if self.ticket.trial && !self.began {
                self.replica.note(self.ticket, Outcome::Abandoned);
            }
            self.replica.meters.cancelled();
        }
        self.replica.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.replica.meters.outstanding.decrement(1.0);
    }
}
