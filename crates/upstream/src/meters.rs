//! Holds: the figures of one upstream, by its name alone.
//!
//! Handles are made once, so that a call costs an atomic add. No label ever carries content or an address.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::call::{CallError, CallErrorKind, Retry};

#[derive(Clone)]
pub(crate) struct Meters {
    ok: Counter,
    client_error: Counter,
    overloaded: Counter,
    failed: Counter,
    unreachable: Counter,
    timed_out: Counter,
    broken_stream: Counter,
    cancelled: Counter,
    first_byte: Histogram,
    pub(crate) outstanding: Gauge,
    pub(crate) healthy: Gauge,
}

impl Meters {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.to_owned();
        let calls = |outcome: &'static str| counter!("batchin_upstream_calls_total", "upstream" => name.clone(), "outcome" => outcome);
        Self {
            ok: calls("ok"),
            client_error: calls("client_error"),
            overloaded: calls("overloaded"),
            failed: calls("failed"),
            unreachable: calls("unreachable"),
            timed_out: calls("timeout"),
            broken_stream: calls("broken_stream"),
            cancelled: calls("cancelled"),
            first_byte: histogram!("batchin_upstream_first_byte_seconds", "upstream" => name.clone()),
            outstanding: gauge!("batchin_upstream_outstanding", "upstream" => name.clone()),
            healthy: gauge!("batchin_upstream_healthy", "upstream" => name),
        }
    }

    pub(crate) fn first_byte(&self, after: Duration) {
        self.first_byte.record(after.as_secs_f64());
    }

    pub(crate) fn succeeded(&self) {
        self.ok.increment(1);
    }

    pub(crate) fn stream_broke(&self) {
        self.broken_stream.increment(1);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.increment(1);
    }

    pub(crate) fn failed(&self, error: &CallError) {
        let meter = match (error.kind, error.retry) {
            (CallErrorKind::Connect(_), _) => &self.unreachable,
            (CallErrorKind::Timeout, _) => &self.timed_out,
            (CallErrorKind::Status(_), Retry::Never) => &self.client_error,
            (CallErrorKind::Status(429 | 503), _) => &self.overloaded,
            _ => &self.failed,
        };
        meter.increment(1);
    }
}
