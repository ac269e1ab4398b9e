//! Holds: what a failed try means to a task. Pure.

use std::time::Duration;

use batchin_gateway::RequestError;
use batchin_store::TaskError;

/// Pause before a task is tried again that waits for money: soon enough after a top-up, seldom enough in between.
const MONEY_PAUSE: Duration = Duration::from_secs(2);
/// First pause after a failed try; doubles with each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What becomes of a task after a try without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for money; its batch says so.
    WaitForMoney {
        /// What its batch says.
        reason: &'static str,
        /// Until the next try.
        pause: Duration,
    },
    /// It is tried again.
    Again {
        /// Until the next try.
        pause: Duration,
        /// Whether this try counts towards the bound.
        counts: bool,
    },
    /// It has failed for good.
    Fail(TaskError),
    /// What is left of the batch's highest cost does not cover it.
    CapReached,
    /// It is no longer ours.
    Leave,
}

/// Decides after the `attempt`-th try, counted from one, of at most `max_attempts`.
pub(crate) fn after(cause: RequestError, attempt: u32, max_attempts: u32) -> Next {
    let backoff = PAUSE.saturating_mul(1 << attempt.min(16).saturating_sub(1)).min(PAUSE_MAX);
    let fail = |code: &str, message: String| {
        Next::Fail(TaskError { code: code.to_owned(), message, status: None, kind: None, param: None })
    };
    let tried_enough = attempt >= max_attempts;
    match cause {
        RequestError::BalanceTooLow { .. } => Next::WaitForMoney { reason: "payment_required", pause: MONEY_PAUSE },
        RequestError::CapTooLow => Next::CapReached,
        RequestError::BudgetTooLow { .. } => Next::WaitForMoney { reason: "budget_used_up", pause: MONEY_PAUSE },
        RequestError::Busy { retry_after } | RequestError::NoUpstream { retry_after } => {
            Next::Again { pause: retry_after.min(PAUSE_MAX), counts: false }
        }
        RequestError::RateLimited(info) => Next::Again { pause: info.reset, counts: false },
        RequestError::Fenced | RequestError::Store(_) => Next::Again { pause: PAUSE, counts: false },
        RequestError::Stopped => Next::Leave,
        RequestError::UpstreamFailed if !tried_enough => Next::Again { pause: backoff, counts: true },
        RequestError::UpstreamTimeout if !tried_enough => Next::Again { pause: backoff, counts: true },
        RequestError::UpstreamFailed => fail("upstream_error", format!("The model server failed {attempt} times.")),
        RequestError::UpstreamTimeout => {
            fail("upstream_timeout", format!("The model server did not answer in time, {attempt} times."))
        }
        RequestError::Refused { status, error } => Next::Fail(TaskError {
            code: error.code.unwrap_or_else(|| "invalid_request".to_owned()),
            message: error.message,
            status: Some(status),
            kind: error.kind,
            param: error.param,
        }),
        RequestError::Invalid(invalid) => fail("invalid_request", invalid.message),
        RequestError::ModelNotFound { model } => {
            fail("model_not_found", format!("The model `{model}` is no longer served here."))
        }
        RequestError::NotCapable { model, needs } => {
            fail("invalid_request", format!("The model `{model}` does not serve {}.", needs.name()))
        }
        RequestError::OverModelLimit { param, asked, limit } => {
            fail("invalid_request", format!("`{param}` is {asked}; the model has at most {limit}."))
        }
        RequestError::CallerGone => fail("unauthorized", "The account is gone.".to_owned()),
        RequestError::IdempotencyMismatch | RequestError::IdempotencyRunning | RequestError::IdempotencyCut => {
            fail("conflict", "The task carries an Idempotency-Key.".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_waits_faults_fail_and_failures_are_bounded() {
        let again = |attempt| after(RequestError::UpstreamFailed, attempt, 3);
        assert_eq!(again(1), Next::Again { pause: PAUSE, counts: true });
        assert_eq!(again(2), Next::Again { pause: PAUSE * 2, counts: true });
        assert!(matches!(again(3), Next::Fail(error) if error.code == "upstream_error"));
        let busy = RequestError::Busy { retry_after: Duration::from_secs(1) };
        assert!(matches!(after(busy, 99, 3), Next::Again { counts: false, .. }));
        let gone = RequestError::ModelNotFound { model: "m".to_owned() };
        assert!(matches!(after(gone, 1, 3), Next::Fail(_)));
        assert_eq!(after(RequestError::Stopped, 1, 3), Next::Leave);
    }

    #[test]
    fn pauses_stay_bounded_however_often_a_task_was_tried() {
        for attempt in [1, 17, 40, u32::MAX - 1] {
            let Next::Again { pause, .. } = after(RequestError::UpstreamFailed, attempt, u32::MAX) else { panic!() };
            assert!(pause <= PAUSE_MAX);
        }
    }
}
