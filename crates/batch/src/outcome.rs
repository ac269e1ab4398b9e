//! Holds: what a failed try means to a task. Pure.

use std::time::Duration;

use batchin_domain::Amount;
use batchin_gateway::{Again, RequestError, TaskError, UpstreamFailure};
use batchin_store::TaskError as EndError;

/// First pause after a failed try; doubles with each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Tries of a task that every server of its model fails alike, while they answer others: the third shows that it is no
/// chance.
const ALIKE_ATTEMPTS: u32 = 3;
/// The longest pause that a model server may ask for; OpenAI's own client waits no longer either.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// What does not cover a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purse {
    /// The account's balance.
    Balance,
    /// The key's budget of the month.
    Budget,
}

/// What becomes of a task after a try without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for money; its batch says so.
    WaitForMoney {
        /// Whose.
        purse: Purse,
        /// What it needs.
        needed: Amount,
    },
    /// It is tried again.
    Again {
        /// Until the next try.
        pause: Duration,
        /// Whether this try counts towards the bound.
        counts: bool,
    },
    /// It has failed for good.
    Fail(EndError),
    /// What is left of the batch's highest cost does not cover it.
    CapReached,
    /// It is no longer ours.
    Leave,
}

/// Decides after the `attempt`-th try, counted from one, of at most `max_attempts`. `chance` is random, so that tasks
/// that failed together do not come back together.
pub(crate) fn after(cause: TaskError, attempt: u32, max_attempts: u32, chance: u32) -> Next {
    match cause {
        TaskError::Preempted => Next::Leave,
        TaskError::Upstream(failure) => after_upstream(failure, attempt, max_attempts, chance),
        TaskError::Request(cause) => after_request(cause, attempt, max_attempts, chance),
    }
}

/// The pause after so many tries: it doubles with each.
fn backoff(attempt: u32, chance: u32) -> Duration {
    jittered(PAUSE.saturating_mul(1 << attempt.min(16).saturating_sub(1)).min(PAUSE_MAX), chance)
}

fn after_upstream(failure: UpstreamFailure, attempt: u32, max_attempts: u32, chance: u32) -> Next {
    let bound = if failure.alike { max_attempts.min(ALIKE_ATTEMPTS) } else { max_attempts };
    let pause = |asked: Option<Duration>| asked.unwrap_or_default().min(RETRY_AFTER_MAX) + backoff(attempt, chance);
    match failure.again {
        Again::NotAsked(asked) => return Next::Again { pause: pause(asked), counts: false },
        Again::After(asked) if attempt < bound => return Next::Again { pause: pause(asked), counts: true },
        Again::After(_) | Again::Never => {}
    }
    if let Some(said) = failure.said {
        return Next::Fail(EndError {
            status: failure.status,
            kind: said.kind,
            param: said.param,
            code: said.code.unwrap_or_else(|| "invalid_request".to_owned()),
            message: said.message,
        });
    }
    // A status of the model server's own may be about the operator's account there; none is shown.
    let (status, code, message) = if failure.timed_out {
        (504, "upstream_timeout", format!("The model server did not answer in time, {attempt} times."))
    } else if failure.again == Again::Never {
        (502, "upstream_error", "The model server's answer is larger than is taken.".to_owned())
    } else if matches!(failure.status, Some(429 | 503)) {
        (503, "service_unavailable", format!("The model servers had too much to do, {attempt} times."))
    } else {
        (502, "upstream_error", format!("The model server failed {attempt} times."))
    };
    let (status, kind) = (Some(status), Some("server_error".to_owned()));
    Next::Fail(EndError { status, kind, param: None, code: code.to_owned(), message })
}

fn after_request(cause: RequestError, attempt: u32, max_attempts: u32, chance: u32) -> Next {
    let again = |pause: Duration| Next::Again { pause: pause + jittered(PAUSE, chance), counts: false };
    let fail = |status: u16, code: &str, param: Option<String>, message: String| {
        let kind = Some("invalid_request_error".to_owned());
        Next::Fail(EndError { status: Some(status), kind, param, code: code.to_owned(), message })
    };
    match cause {
        RequestError::BalanceTooLow { needed, .. } => Next::WaitForMoney { purse: Purse::Balance, needed },
        RequestError::BudgetTooLow { needed, .. } => Next::WaitForMoney { purse: Purse::Budget, needed },
        RequestError::Busy { retry_after }
        | RequestError::OverShare { retry_after }
        | RequestError::NoUpstream { retry_after } => again(retry_after.min(PAUSE_MAX)),
        RequestError::RateLimited(info) => again(info.reset),
        RequestError::Fenced | RequestError::Store(_) => again(Duration::ZERO),
        // What the store refuses it refuses again, and each try costs a call.
        RequestError::NotStorable if attempt < max_attempts => {
            Next::Again { pause: backoff(attempt, chance), counts: true }
        }
        RequestError::NotStorable => Next::Fail(not_storable()),
        // What interactive requests are told; a task is told more, as `TaskError::Upstream`.
        RequestError::UpstreamFailed | RequestError::UpstreamTimeout => {
            fail(502, "upstream_error", None, "The model server failed.".to_owned())
        }
        RequestError::Stopped => Next::Leave,
        RequestError::Refused { status, error } => Next::Fail(EndError {
            status: Some(status),
            kind: error.kind,
            param: error.param,
            code: error.code.unwrap_or_else(|| "invalid_request".to_owned()),
            message: error.message,
        }),
        RequestError::CapTooLow => Next::CapReached,
        RequestError::Invalid(invalid) => fail(400, "invalid_request", invalid.param, invalid.message),
        RequestError::ModelNotFound { model } => {
            let message = format!("The model `{model}` is no longer served here.");
            fail(404, "model_not_found", Some("model".to_owned()), message)
        }
        RequestError::NotCapable { model, needs } => {
            let message = format!("The model `{model}` does not serve {}.", needs.name());
            fail(400, "invalid_request", Some("model".to_owned()), message)
        }
        RequestError::OverModelLimit { param, asked, limit } => {
            let message = format!("`{param}` is {asked}; the model has at most {limit}.");
            fail(400, "invalid_request", Some(param.to_owned()), message)
        }
        RequestError::CallerGone => fail(401, "unauthorized", None, "The account is gone.".to_owned()),
        RequestError::IdempotencyMismatch
        | RequestError::IdempotencyRunning
        | RequestError::IdempotencyCrowded
        | RequestError::IdempotencyCut => {
            fail(409, "conflict", None, "The task carries an Idempotency-Key.".to_owned())
        }
    }
}

/// Plain words of ours, which the store takes.
fn not_storable() -> EndError {
    EndError {
        status: None,
        kind: Some("server_error".to_owned()),
        param: None,
        code: "internal".to_owned(),
        message: "The result could not be stored.".to_owned(),
    }
}

/// Full jitter: anything from nothing to all of it.
fn jittered(most: Duration, chance: u32) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    let part = u128::from(micros) * u128::from(chance) / u128::from(u32::MAX);
    Duration::from_micros(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: u16, again: Again) -> TaskError {
        TaskError::Upstream(UpstreamFailure { status: Some(status), timed_out: false, again, said: None, alike: false })
    }

    fn pause_of(next: &Next) -> (Duration, bool) {
        match next {
            Next::Again { pause, counts } => (*pause, *counts),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_are_tried_again_with_growing_jittered_pauses_up_to_the_bound() {
        let try_ = |attempt, chance| after(failed(500, Again::After(None)), attempt, 3, chance);
        assert_eq!(pause_of(&try_(1, u32::MAX)), (PAUSE, true));
        assert_eq!(pause_of(&try_(2, u32::MAX)), (PAUSE * 2, true));
        assert_eq!(pause_of(&try_(2, 0)), (Duration::ZERO, true));
        let Next::Fail(EndError { status, code, .. }) = try_(3, 0) else { panic!("no end") };
        assert_eq!((status, code.as_str()), (Some(502), "upstream_error"));
    }

    #[test]
    fn a_task_that_failed_alike_everywhere_ends_sooner() {
        let try_ = |attempt| {
            let again = Again::After(None);
            let failure = UpstreamFailure { status: Some(500), timed_out: false, again, said: None, alike: true };
            after(TaskError::Upstream(failure), attempt, 50, 0)
        };
        assert!(pause_of(&try_(ALIKE_ATTEMPTS - 1)).1);
        assert!(matches!(try_(ALIKE_ATTEMPTS), Next::Fail(_)));
    }

    #[test]
    fn the_operator_s_own_account_is_never_shown() {
        for (status, shown) in [(401, 502), (402, 502), (403, 502), (404, 502), (429, 503), (503, 503), (500, 502)] {
            let Next::Fail(end) = after(failed(status, Again::After(None)), 3, 3, 0) else { panic!("tried again") };
            assert_eq!(end.status, Some(shown), "{status}");
            assert!(!end.message.contains(&status.to_string()), "{}", end.message);
        }
    }

    #[test]
    fn a_server_s_own_pause_is_obeyed_within_bounds() {
        let asked = |secs| Again::After(Some(Duration::from_secs(secs)));
        assert_eq!(pause_of(&after(failed(429, asked(7)), 1, 3, 0)), (Duration::from_secs(7), true));
        assert_eq!(pause_of(&after(failed(409, asked(3_600)), 1, 3, 0)), (RETRY_AFTER_MAX, true));
        let down = Again::NotAsked(Some(Duration::from_secs(1)));
        assert_eq!(pause_of(&after(failed(503, down), 99, 3, 0)), (Duration::from_secs(1), false));
    }

    #[test]
    fn a_try_whose_end_the_store_refuses_counts() {
        let refused = |attempt| after(RequestError::NotStorable.into(), attempt, 3, u32::MAX);
        assert_eq!(pause_of(&refused(1)), (PAUSE, true));
        assert_eq!(pause_of(&refused(2)), (PAUSE * 2, true));
        let Next::Fail(EndError { code, .. }) = refused(3) else { panic!("no end") };
        assert_eq!(code, "internal");
    }

    #[test]
    fn faults_fail_at_once_and_what_is_ours_does_not_count() {
        let busy = RequestError::Busy { retry_after: Duration::from_secs(1) };
        assert!(!pause_of(&after(busy.into(), 99, 3, 0)).1);
        let gone = RequestError::ModelNotFound { model: "m".to_owned() };
        assert!(matches!(after(gone.into(), 1, 3, 0), Next::Fail(EndError { status: Some(404), .. })));
        assert_eq!(after(RequestError::Stopped.into(), 1, 3, 0), Next::Leave);
        let body = br#"{"error":{"message":"bad","type":"BadRequestError","param":"n","code":400}}"#;
        let said = Some(Box::new(batchin_openai::upstream_error_message(400, body)));
        let refused = UpstreamFailure { status: Some(400), timed_out: false, again: Again::Never, said, alike: false };
        let Next::Fail(EndError { status, kind, param, message, .. }) = after(TaskError::Upstream(refused), 1, 3, 0)
        else {
            panic!("tried again")
        };
        assert_eq!((status, kind.as_deref(), param.as_deref()), (Some(400), Some("BadRequestError"), Some("n")));
        assert_eq!(message, "bad");
    }

    #[test]
    fn pauses_stay_bounded_however_often_a_task_was_tried() {
        for attempt in [1, 17, 40, u32::MAX - 1] {
            let next = after(failed(500, Again::After(None)), attempt, u32::MAX, u32::MAX);
            assert!(pause_of(&next).0 <= PAUSE_MAX);
        }
    }
}
