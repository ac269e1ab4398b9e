//! Holds: the figures of one upstream, by its name alone.
//!
//! Handles are made once, so that a call costs an atomic add. No label ever carries content or an address.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{
    breaker::{BreakerState, Trouble},
    failure::{CallError, CallErrorKind, Retry},
};

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
    pub(crate) model_missing: Gauge,
    breaker: [(BreakerState, Gauge); 4],
    trouble: [(Trouble, Gauge); 4],
    ill: Gauge,
}

impl Meters {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.to_owned();
        let trouble =
            |cause: &'static str| gauge!("batchin_upstream_trouble", "upstream" => name.clone(), "cause" => cause);
        let state = |state: BreakerState| {
            let gauge = gauge!("batchin_upstream_breaker", "upstream" => name.clone(), "state" => state.name());
            gauge.set(if state == BreakerState::Closed { 1.0 } else { 0.0 });
            (state, gauge)
        };
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
            healthy: gauge!("batchin_upstream_healthy", "upstream" => name.clone()),
            model_missing: trouble("model_missing"),
            breaker: BreakerState::ALL.map(state),
            trouble: Trouble::ALL.map(|one| (one, trouble(one.name()))),
            ill: trouble("no_answer"),
        }
    }

    /// Shows the breaker, what troubles the upstream, and whether its health check fails.
    pub(crate) fn show(&self, breaker: BreakerState, trouble: Option<Trouble>, ill: bool) {
        let truth = |is: bool| if is { 1.0 } else { 0.0 };
        self.breaker.iter().for_each(|(state, gauge)| gauge.set(truth(*state == breaker)));
        self.trouble.iter().for_each(|(one, gauge)| gauge.set(truth(Some(*one) == trouble)));
        self.ill.set(truth(ill));
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
