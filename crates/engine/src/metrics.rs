//! Holds: what each model has done, as numbers. Names are those of llama.cpp's own server, so that dashboards fit.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counters of one model. Written by its thread, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct ModelMetrics {
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) prompt_micros: AtomicU64,
    pub(crate) predicted_tokens: AtomicU64,
    pub(crate) predicted_micros: AtomicU64,
    pub(crate) decode_calls: AtomicU64,
    pub(crate) busy_slots: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) preempted: AtomicU64,
    pub(crate) processing: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) context_tokens_high: AtomicU64,
}

impl ModelMetrics {
    /// Notes one pass through the model. Time is shared between prompt and generation by their tokens.
    pub(crate) fn note_pass(&self, prompt_tokens: u64, predicted_tokens: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let tokens = (prompt_tokens + predicted_tokens).max(1);
        let prompt_micros = micros.saturating_mul(prompt_tokens) / tokens;
        self.prompt_tokens.fetch_add(prompt_tokens, Relaxed);
        self.predicted_tokens.fetch_add(predicted_tokens, Relaxed);
        self.prompt_micros.fetch_add(prompt_micros, Relaxed);
        self.predicted_micros.fetch_add(micros - prompt_micros, Relaxed);
        self.decode_calls.fetch_add(1, Relaxed);
    }
}

/// One line of the exposition: name, help, type and how to read it.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: fn(&ModelMetrics) -> f64,
}

#[expect(clippy::cast_precision_loss, reason = "counters beyond 2^53 would take centuries")]
fn count(value: &AtomicU64) -> f64 {
    value.load(Relaxed) as f64
}

fn ratio(above: &AtomicU64, below: &AtomicU64, scale: f64) -> f64 {
    let below = count(below);
    if below == 0.0 { 0.0 } else { count(above) / below * scale }
}

const FAMILIES: &[Family] = &[
    Family {
        name: "prompt_tokens_total",
        kind: "counter",
        help: "Prompt tokens processed.",
        read: |m| count(&m.prompt_tokens),
    },
    Family {
        name: "prompt_seconds_total",
        kind: "counter",
        help: "Seconds spent on prompts.",
        read: |m| count(&m.prompt_micros) / 1e6,
    },
    Family {
        name: "tokens_predicted_total",
        kind: "counter",
        help: "Tokens generated.",
        read: |m| count(&m.predicted_tokens),
    },
    Family {
        name: "tokens_predicted_seconds_total",
        kind: "counter",
        help: "Seconds spent on generation.",
        read: |m| count(&m.predicted_micros) / 1e6,
    },
    Family {
        name: "n_decode_total",
        kind: "counter",
        help: "Passes through the model.",
        read: |m| count(&m.decode_calls),
    },
    Family {
        name: "n_busy_slots_per_decode",
        kind: "counter",
        help: "Slots busy in a pass, on average.",
        read: |m| ratio(&m.busy_slots, &m.decode_calls, 1.0),
    },
    Family {
        name: "prompt_tokens_seconds",
        kind: "gauge",
        help: "Prompt tokens per second, on average.",
        read: |m| ratio(&m.prompt_tokens, &m.prompt_micros, 1e6),
    },
    Family {
        name: "predicted_tokens_seconds",
        kind: "gauge",
        help: "Generated tokens per second, on average.",
        read: |m| ratio(&m.predicted_tokens, &m.predicted_micros, 1e6),
    },
    Family { name: "requests_processing", kind: "gauge", help: "Requests in a slot.", read: |m| count(&m.processing) },
    Family {
        name: "requests_deferred",
        kind: "gauge",
        help: "Requests waiting for a slot.",
        read: |m| count(&m.deferred),
    },
    Family {
        name: "n_tokens_max",
        kind: "counter",
        help: "Most context tokens ever in use.",
        read: |m| count(&m.context_tokens_high),
    },
    Family {
        name: "prompt_tokens_cached_total",
        kind: "counter",
        help: "Prompt tokens taken from another request's cache.",
        read: |m| count(&m.cached_tokens),
    },
    Family {
        name: "requests_preempted_total",
        kind: "counter",
        help: "Requests put back to let another go first.",
        read: |m| count(&m.preempted),
    },
];

/// The Prometheus text for these models, by id.
pub(crate) fn exposition<'a>(models: impl Iterator<Item = (&'a str, &'a ModelMetrics)> + Clone) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let Family { name, kind, help, read } = family;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}");
        for (id, metrics) in models.clone() {
            let id = id.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(text, "llamacpp:{name}{{model=\"{id}\"}} {}", read(metrics));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_line_for_every_model() {
        let metrics = ModelMetrics::default();
        metrics.note_pass(30, 10, Duration::from_secs(4));
        let text = exposition([("a", &metrics), ("b", &metrics)].into_iter());
        assert!(text.contains("llamacpp:prompt_tokens_total{model=\"a\"} 30\n"), "{text}");
        assert!(text.contains("llamacpp:tokens_predicted_seconds_total{model=\"b\"} 1\n"), "{text}");
        assert_eq!(text.lines().count(), FAMILIES.len() * 4);
    }
}
