//! Holds: one call's place at its server: what becomes of it is told once, and the place is given back.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    breaker::{Asker, Outcome, Ticket},
    failure::{CallError, CallErrorKind, Retry},
    record::Record,
    transport::{AnswerBody, MAX_REFUSAL_BYTES, collect},
};

/// How long a body may take to end after its last event. Opening a connection costs less than waiting longer.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// A call under way. It counts while it lives and reports how the call went exactly once.
pub(crate) struct Lease {
    record: Arc<Record>,
    ticket: Ticket,
    began: bool,
    settled: bool,
}

impl Lease {
    /// A place for one more call, unless the breaker holds it back.
    pub(crate) fn take(record: &Arc<Record>, asker: Asker, now: Instant) -> Result<Self, CallError> {
        let ticket = record.admit(asker, now).map_err(|until| {
            let retry = Retry::Later(until.map(|until| until.saturating_duration_since(now)));
            CallError { kind: CallErrorKind::Unavailable, retry, client_error: None }
        })?;
        Ok(Self { record: Arc::clone(record), ticket, began: false, settled: false })
    }

    pub(crate) fn succeeded(&mut self) {
        self.settle(Outcome::Answered);
        self.record.meters.succeeded();
    }

    pub(crate) fn failed(&mut self, error: &CallError) {
        self.settle(error.outcome());
        self.record.meters.failed(error);
    }

    pub(crate) fn stream_broke(&mut self) {
        self.settle(Outcome::Failed);
        self.record.meters.stream_broke();
    }

    /// A stream's first event closes a breaker that is open: waiting for its end would keep the server shut for minutes.
    pub(crate) fn began(&mut self) {
        if self.ticket.trial || self.record.breaker().shut().is_some() {
            self.began = true;
            self.record.note(self.ticket, Outcome::Answered);
        }
    }

    /// Reads a finished stream's body to its end, so that its connection can be used again.
    pub(crate) fn drain(&self, body: AnswerBody) {
        // A stream can be dropped after its runtime; then there is no connection left to save.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.record.tasks.spawn("upstream_drain", |stop| async move {
            let drained = collect(body, MAX_REFUSAL_BYTES, DRAIN_PATIENCE);
            // When it does not end, the connection is closed instead; nothing is lost either way.
            drop(stop.run_until_cancelled(drained).await);
        });
    }

    fn settle(&mut self, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            self.record.note(self.ticket, outcome);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("upstream", &self.record.name).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            if self.ticket.trial && !self.began {
                self.record.note(self.ticket, Outcome::Abandoned);
            }
            self.record.meters.cancelled();
        }
        self.record.left();
    }
}
