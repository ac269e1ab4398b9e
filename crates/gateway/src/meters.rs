//! Holds: the figures of requests, by model, class and outcome.
//!
//! Handles are made when a model is first used in a class, so that a request costs a few atomic additions.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use batchin_domain::{Class, Counts, Measure};
use batchin_store::Outcome;
use metrics::{Counter, Histogram, counter, histogram};

/// The figures of all models. Their number is bounded by the models that were ever configured.
#[derive(Default)]
pub(crate) struct Meters {
    /// std lock: held for one look-up, never across an await.
    models: RwLock<HashMap<String, Arc<[OnceLock<ClassMeters>; Class::ALL.len()]>>>,
}

/// One model in one class.
struct ClassMeters {
    completed: Counter,
    client_gone: Counter,
    upstream_failed: Counter,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    seconds: Histogram,
    ttft: Histogram,
    tpot: Histogram,
}

/// What a request that has ended adds.
pub(crate) struct Ended {
    pub(crate) class: Class,
    pub(crate) outcome: Outcome,
    pub(crate) counts: Counts,
    pub(crate) elapsed: Duration,
    pub(crate) ttft: Option<Duration>,
}

impl Meters {
    /// Counts a request.
    pub(crate) fn note(&self, model: &str, ended: &Ended) {
        let known = self.models.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned();
        let classes = known.unwrap_or_else(|| {
            let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(models.entry(model.to_owned()).or_default())
        });
        classes[ended.class.index()].get_or_init(|| ClassMeters::of(model, ended.class)).note(ended);
    }
}

impl ClassMeters {
    fn of(model: &str, class: Class) -> Self {
        let (model, class) = (model.to_owned(), class.name());
        let requests = |outcome: Outcome| counter!("batchin_requests_total", "model" => model.clone(), "class" => class, "outcome" => outcome.name());
        Self {
            completed: requests(Outcome::Completed),
            client_gone: requests(Outcome::ClientGone),
            upstream_failed: requests(Outcome::UpstreamFailed),
            prompt_tokens: counter!("batchin_prompt_tokens_total", "model" => model.clone(), "class" => class),
            completion_tokens: counter!("batchin_completion_tokens_total", "model" => model.clone(), "class" => class),
            seconds: histogram!("batchin_request_seconds", "model" => model.clone(), "class" => class),
            ttft: histogram!("batchin_ttft_seconds", "model" => model.clone(), "class" => class),
            tpot: histogram!("batchin_tpot_seconds", "model" => model, "class" => class),
        }
    }

    fn note(&self, ended: &Ended) {
        match ended.outcome {
            Outcome::Completed => self.completed.increment(1),
            Outcome::ClientGone => self.client_gone.increment(1),
            Outcome::UpstreamFailed => self.upstream_failed.increment(1),
            // It has not ended.
            Outcome::Running => return,
        }
        let completion = ended.counts.of(Measure::CompletionTokens);
        self.prompt_tokens.increment(ended.counts.of(Measure::PromptTokens));
        self.completion_tokens.increment(completion);
        self.seconds.record(ended.elapsed.as_secs_f64());
        let Some(ttft) = ended.ttft else { return };
        self.ttft.record(ttft.as_secs_f64());
        if completion > 1 {
            let tokens_after_first = (completion - 1) as f64;
            self.tpot.record(ended.elapsed.saturating_sub(ttft).as_secs_f64() / tokens_after_first);
        }
    }
}
