//! Holds: one call to one model server: what it is asked for, and what its failure means.

use std::time::Duration;

use batchin_domain::Class;
use batchin_openai::UpstreamError;
use batchin_scheduler::Outcome as Ended;
use batchin_upstream::{Call, CallError, CallErrorKind, Kind, Retry};
use metrics::counter;
use tracing::{debug, info};

use crate::{Inbound, admit::Admitted, bill::public_id, dispatch::Running};

/// What a refused client is told to wait when nobody knows better.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why no model server takes a request now.
#[derive(Debug, thiserror::Error)]
pub enum NoRoom {
    /// Every upstream that could serve it is at its cap.
    #[error("all upstreams are busy")]
    Busy {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// No upstream can serve it now.
    #[error("no upstream can serve this now")]
    NoUpstream {
        /// When trying again makes sense.
        retry_after: Duration,
    },
}

/// Why no model server answered somebody who waits.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// None takes it now.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The upstream says that the request itself is at fault.
    #[error("the model server refused the request")]
    Refused {
        /// What the client is told: 400, 413 or 422.
        status: u16,
        /// What it says, without its address.
        error: Box<UpstreamError>,
    },
    /// The upstreams failed.
    #[error("the model server failed")]
    Failed,
    /// The upstreams took too long.
    #[error("the model server did not answer in time")]
    TimedOut,
    /// Nobody had room for work that gives way to others, for as long as it may wait.
    #[error("the upstreams had no room for work that waits")]
    NotFree {
        /// When trying again makes sense.
        retry_after: Duration,
    },
}

impl DispatchError {
    /// As it is told to who asked for this class: one that waits for room has found none.
    pub(crate) fn in_class(self, class: Class) -> Self {
        match self {
            Self::NoRoom(NoRoom::Busy { retry_after }) if class != Class::Interactive => Self::NotFree { retry_after },
            other => other,
        }
    }
}

/// Counts and logs a failure of a server; what the request is to blame for is none. Tasks are tried again, and fail by
/// the thousand: the breaker and the metric say so, and each of them only who asks for it.
pub(crate) fn note_failure(upstream: &str, class: Class, error: &CallError) {
    if error.client_error.is_none() {
        counter!("batchin_upstream_failures_total", "upstream" => upstream.to_owned()).increment(1);
        match class {
            Class::Interactive => info!(upstream, error = %error.kind, "upstream {upstream} failed"),
            Class::High | Class::Low | Class::Fill => {
                debug!(upstream, error = %error.kind, "upstream {upstream} failed");
            }
        }
    }
}

pub(crate) fn call_of<'a>(inbound: &Inbound, admitted: &'a Admitted, running: &Running) -> Call<'a> {
    let model = &*admitted.model;
    Call {
        kind: admitted.asked.call,
        native: admitted.asked.native.as_deref(),
        body: admitted.asked.body.clone(),
        uploads: admitted.uploads(),
        upstream_model: Some(model.upstream_name()),
        public_id: public_id(inbound),
        public_model: &model.id,
        stream: admitted.peek.stream,
        include_usage: admitted.peek.include_usage,
        continuous_usage: admitted.peek.continuous_usage,
        answers: choices_of(admitted, running.replica.kind()),
        wanted: admitted.peek.wanted,
        tier: admitted.tier(inbound),
        request_id: inbound.request.to_string(),
        class_priority: i32::try_from(admitted.class.index()).ok().filter(|_| admitted.class != Class::Interactive),
        max_tokens: admitted.max_tokens,
        held: admitted.most_of_each(),
        fim: admitted.peek.has_suffix.then_some(model.fim),
        speech: admitted.speech.clone(),
        created: running.now().seconds(),
        asker: running.asker,
    }
}

/// How many choices an answer of such a server has.
pub(crate) fn choices_of(admitted: &Admitted, kind: Kind) -> u32 {
    if kind.ignores_n { admitted.peek.bound.items.max(1) } else { admitted.given() }
}

/// What the scheduler is told of a failed call.
pub(crate) fn ended(error: &CallError, running: &Running) -> Ended {
    match (error.kind, error.retry) {
        (CallErrorKind::Timeout, _) => Ended::Timeout,
        // One account's overload lowers what runs there, and is no pause for others that are answered.
        (CallErrorKind::Status(429 | 503), Retry::Later(_)) if running.replica.answers_others(running.asker) => {
            Ended::Timeout
        }
        (CallErrorKind::Status(429 | 503), Retry::Later(retry_after)) => Ended::Overloaded { retry_after },
        _ => Ended::Failed,
    }
}

pub(crate) fn final_error(error: CallError) -> DispatchError {
    let status = error.shown_status();
    match (error.kind, error.retry, error.client_error) {
        (_, Retry::Never, Some(cause)) => DispatchError::Refused { status, error: cause },
        (CallErrorKind::Status(429 | 503), Retry::Later(after), _) => {
            NoRoom::Busy { retry_after: after.unwrap_or(RETRY_AFTER) }.into()
        }
        (CallErrorKind::Timeout, ..) => DispatchError::TimedOut,
        (CallErrorKind::Unavailable | CallErrorKind::Connect(_), retry, _) => {
            let retry_after = if let Retry::Later(Some(after)) = retry { after } else { RETRY_AFTER };
            NoRoom::NoUpstream { retry_after }.into()
        }
        _ => DispatchError::Failed,
    }
}
