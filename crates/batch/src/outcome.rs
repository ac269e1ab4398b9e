//! Holds: every decision about a claimed task: what comes next, after whatever came of it. Pure.
//!
//! The worker says what came and carries out what follows; which of it ends the task, counts as a try or waits for how
//! long is decided here alone.

use std::time::Duration;

use batchin_domain::Amount;
use batchin_gateway::{
    AdmitError, Again, CapError, NoRoom, PurseError, Reader, ReserveError, SettleError, TaskError, UpstreamFailure,
};
use batchin_openai::Code;
use batchin_store::TaskError as EndError;

/// First pause after a failed try; doubles with each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Tries of a task that every server of its model fails alike, while they answer others: the third shows that it is no
/// chance.
const ALIKE_ATTEMPTS: u32 = 3;
/// The longest pause that a model server may ask for; OpenAI's own client waits no longer either.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// Before a task is looked at again that gave way or found no place: as long as between two looks at the queue.
const PLACE_PAUSE: Duration = Duration::from_millis(100);
/// Before a task is run again whose body could not be read: what keeps it is seldom over at once.
const BODY_PAUSE: Duration = Duration::from_secs(5);
/// Before a task is run again of which something could not be stored.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Before a batch is looked at again whose highest cost is in use by tasks that run.
pub(crate) const CAP_PAUSE: Duration = Duration::from_millis(500);

/// What does not cover a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purse {
    /// The account's balance.
    Balance,
    /// The key's budget of the month.
    Budget,
}

/// What came of a claimed task.
#[derive(Debug)]
pub(crate) enum Came {
    /// Its body could not be read.
    NoBody,
    /// It asks for a kind of call that is not known here: its row is damaged, or a later version wrote it.
    UnknownCall,
    /// As many tasks of its model wait as may.
    NoPlace,
    /// Who pays for it could not be read.
    NoPayer,
    /// A try brought no answer, or could not be made.
    Failed(TaskError),
    /// Its answer could not be stored.
    NoResult,
    /// The ledger did not take its answer.
    Unsettled(SettleError),
    /// It has its answer, and that is settled.
    Completed,
    /// The ledger did not take its failure.
    NotEnded(SettleError),
    /// What is left of its batch's highest cost does not cover it while so many tasks of the batch run, itself included.
    OverCap {
        /// How many.
        running: u64,
    },
    /// Its batch could not be stopped at its highest cost.
    NotStopped,
    /// Its batch waits for something, and says so.
    Waiting,
    /// It has ended without an answer.
    Ended,
    /// It was cancelled, or is another node's: whoever did that has dealt with it.
    Lost,
    /// This node stops.
    Stopping,
}

/// What a task's run says about its account's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Money {
    /// None was set aside.
    Untouched,
    /// What was set aside is free or spent: what waits for money may find some.
    Freed,
    /// That too; and the task could be paid for, so that its batch waits no longer.
    Sufficed,
}

impl Came {
    /// What it says about money.
    pub(crate) fn money(&self) -> Money {
        match self {
            Self::Completed | Self::Failed(TaskError::Upstream(_)) => Money::Sufficed,
            Self::Failed(TaskError::Preempted) | Self::NoResult | Self::Unsettled(_) | Self::Lost => Money::Freed,
            Self::Failed(
                TaskError::Fenced(_)
                | TaskError::Admit(_)
                | TaskError::Cap(_)
                | TaskError::Reserve(_)
                | TaskError::NoRoom(_),
            )
            | Self::NoPayer
            | Self::NoBody
            | Self::UnknownCall
            | Self::NoPlace
            | Self::NotEnded(_)
            | Self::OverCap { .. }
            | Self::NotStopped
            | Self::Waiting
            | Self::Ended
            | Self::Stopping => Money::Untouched,
        }
    }
}

/// How often a task has been tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// Counted from one, this time included.
    pub attempt: u32,
    /// The most of them that fail for reasons of the upstream.
    pub max_attempts: u32,
    /// Random, so that tasks that failed together do not come back together.
    pub chance: u32,
}

/// What is done next about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for money; its batch says so.
    WaitForMoney {
        /// Whose.
        purse: Purse,
        /// What it needs.
        needed: Amount,
    },
    /// It goes back to the queue.
    Again {
        /// Until the next try.
        pause: Duration,
        /// Whether this try counts towards the bound.
        counts: bool,
    },
    /// It has failed for good.
    Fail(EndError),
    /// It is asked how many tasks of its batch run: what they give back of its highest cost may cover it.
    AskCap,
    /// Its batch waits for those that run, and says so.
    WaitForCap,
    /// Its batch ends here, at its highest cost.
    StopBatch,
    /// It is no longer ours.
    Leave,
}

/// Decides. Whatever came, few steps lead to [`Next::Again`] or [`Next::Leave`].
pub(crate) fn next(came: Came, tried: Tried) -> Next {
    let Tried { attempt, max_attempts, chance } = tried;
    let again = |pause, counts| Next::Again { pause, counts };
    match came {
        Came::NoBody => again(BODY_PAUSE, true),
        Came::UnknownCall => Next::Fail(ours("The kind of call that the task asks for is not known here.")),
        Came::NoPlace => again(PLACE_PAUSE, false),
        Came::NoPayer => soon(Duration::ZERO, chance),
        Came::Failed(cause) => after(cause, attempt, max_attempts, chance),
        Came::NoResult => again(STORE_PAUSE, false),
        Came::Unsettled(cause) => after_settling(cause, attempt, max_attempts, chance),
        // One that the store refuses is a try like any other: else it would be made for ever.
        Came::NotEnded(cause) => again(STORE_PAUSE, matches!(cause, SettleError::NotStorable)),
        Came::OverCap { running } if running > 1 => Next::WaitForCap,
        Came::OverCap { .. } => Next::StopBatch,
        Came::NotStopped => again(CAP_PAUSE, false),
        Came::Waiting | Came::Stopping => again(Duration::ZERO, false),
        Came::Completed | Came::Ended | Came::Lost => Next::Leave,
    }
}

/// After an answer that the ledger did not take.
fn after_settling(cause: SettleError, attempt: u32, max_attempts: u32, chance: u32) -> Next {
    match cause {
        SettleError::Stopped => Next::Leave,
        // What the store refuses it refuses again, and each try costs a call.
        SettleError::NotStorable if attempt < max_attempts => {
            Next::Again { pause: backoff(attempt, chance), counts: true }
        }
        SettleError::NotStorable => Next::Fail(ours("The result could not be stored.")),
        SettleError::Fenced(_) => soon(Duration::ZERO, chance),
    }
}

/// Tried again, and not to be blamed for it.
fn soon(pause: Duration, chance: u32) -> Next {
    Next::Again { pause: pause.min(PAUSE_MAX) + jittered(PAUSE, chance), counts: false }
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
            code: said.code.unwrap_or_else(|| Code::InvalidRequest.name().to_owned()),
            message: said.message,
        });
    }
    // A status of the model server's own may be about the operator's account there; none is shown.
    let (code, message) = if failure.timed_out {
        (Code::UpstreamTimeout, format!("The model server did not answer in time, {attempt} times."))
    } else if failure.again == Again::Never {
        (Code::UpstreamError, "The model server's answer is larger than is taken.".to_owned())
    } else if matches!(failure.status, Some(429 | 503)) {
        (Code::ServiceUnavailable, format!("The model servers had too much to do, {attempt} times."))
    } else {
        (Code::UpstreamError, format!("The model server failed {attempt} times."))
    };
    Next::Fail(end(code, None, message))
}

/// After a try that brought no answer.
fn after(cause: TaskError, attempt: u32, max_attempts: u32, chance: u32) -> Next {
    match cause {
        TaskError::Preempted => Next::Again { pause: PLACE_PAUSE, counts: false },
        TaskError::Upstream(failure) => after_upstream(failure, attempt, max_attempts, chance),
        TaskError::Reserve(ReserveError::BalanceTooLow { needed, .. }) => {
            Next::WaitForMoney { purse: Purse::Balance, needed }
        }
        TaskError::Reserve(ReserveError::BudgetTooLow { needed, .. }) => {
            Next::WaitForMoney { purse: Purse::Budget, needed }
        }
        TaskError::Cap(CapError::TooLow) => Next::AskCap,
        TaskError::Reserve(ReserveError::Purse(cause)) | TaskError::Cap(CapError::Purse(cause)) => match cause {
            PurseError::CallerGone => {
                // A task brings no key of its own, so its family is that of its other faults.
                let kind = Some(Code::InvalidRequest.kind().to_owned());
                Next::Fail(EndError { kind, ..end(Code::Unauthorized, None, "The account is gone.".to_owned()) })
            }
            PurseError::Fenced(_) | PurseError::Store(_) => soon(Duration::ZERO, chance),
        },
        TaskError::Admit(cause) => after_admit(&cause, chance),
        TaskError::NoRoom(NoRoom::Busy { retry_after } | NoRoom::NoUpstream { retry_after }) => {
            soon(retry_after, chance)
        }
        TaskError::Fenced(_) => soon(Duration::ZERO, chance),
    }
}

fn after_admit(cause: &AdmitError, chance: u32) -> Next {
    match cause {
        AdmitError::Offline { retry_after } => soon(*retry_after, chance),
        AdmitError::Invalid(_)
        | AdmitError::ModelNotFound { .. }
        | AdmitError::NotCapable { .. }
        | AdmitError::OverModelLimit { .. } => {
            Next::Fail(end(cause.code(), cause.param().map(str::to_owned), cause.message(Reader::TaskOwner)))
        }
    }
}

fn end(code: Code, param: Option<String>, message: String) -> EndError {
    let (status, kind) = (Some(code.status()), Some(code.kind().to_owned()));
    EndError { status, kind, param, code: code.name().to_owned(), message }
}

/// A failure that is ours, in plain words, which the store takes.
fn ours(message: &str) -> EndError {
    EndError { status: None, ..end(Code::Internal, None, message.to_owned()) }
}

/// Full jitter: anything from nothing to all of it.
fn jittered(most: Duration, chance: u32) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    let part = u128::from(micros) * u128::from(chance) / u128::from(u32::MAX);
    Duration::from_micros(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use batchin_domain::Capability;
    use batchin_gateway::Fenced;
    use batchin_openai::InvalidRequest;

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
        let refused = |attempt| after_settling(SettleError::NotStorable, attempt, 3, u32::MAX);
        assert_eq!(pause_of(&refused(1)), (PAUSE, true));
        assert_eq!(pause_of(&refused(2)), (PAUSE * 2, true));
        let Next::Fail(EndError { code, .. }) = refused(3) else { panic!("no end") };
        assert_eq!(code, "internal");
    }

    #[test]
    fn faults_fail_at_once_and_what_is_ours_does_not_count() {
        let busy = NoRoom::Busy { retry_after: Duration::from_secs(1) };
        assert!(!pause_of(&after(busy.into(), 99, 3, 0)).1);
        let gone = AdmitError::ModelNotFound { model: "m".to_owned() };
        assert!(matches!(after(gone.into(), 1, 3, 0), Next::Fail(EndError { status: Some(404), .. })));
        assert_eq!(after_settling(SettleError::Stopped, 1, 3, 0), Next::Leave);
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

    fn next_of(came: Came) -> Next {
        next(came, Tried { attempt: 1, max_attempts: 3, chance: u32::MAX })
    }

    #[test]
    fn who_gives_way_comes_back_and_who_is_stopped_does_not() {
        assert_eq!(pause_of(&next_of(Came::Failed(TaskError::Preempted))), (PLACE_PAUSE, false));
        assert_eq!(pause_of(&next_of(Came::NoPlace)), (PLACE_PAUSE, false));
        assert_eq!(pause_of(&next_of(Came::Stopping)), (Duration::ZERO, false));
        for gone in [Came::Unsettled(SettleError::Stopped), Came::Lost, Came::Ended, Came::Completed] {
            assert_eq!(next_of(gone), Next::Leave);
        }
    }

    #[test]
    fn an_end_that_is_not_taken_counts_only_where_it_never_will_be() {
        assert_eq!(pause_of(&next_of(Came::NotEnded(SettleError::NotStorable))), (STORE_PAUSE, true));
        assert_eq!(pause_of(&next_of(Came::NotEnded(Fenced.into()))), (STORE_PAUSE, false));
        assert_eq!(pause_of(&next_of(Came::NoResult)), (STORE_PAUSE, false));
        assert_eq!(pause_of(&next_of(Came::NoBody)), (BODY_PAUSE, true));
    }

    #[test]
    fn a_call_of_an_unknown_kind_is_not_made() {
        let Next::Fail(end) = next_of(Came::UnknownCall) else { panic!("tried") };
        assert_eq!((end.status, end.code.as_str()), (None, "internal"));
    }

    #[test]
    fn a_batch_stops_at_its_highest_cost_once_nothing_of_it_runs_that_may_give_some_back() {
        assert_eq!(next_of(Came::Failed(CapError::TooLow.into())), Next::AskCap);
        assert_eq!(next_of(Came::OverCap { running: 2 }), Next::WaitForCap);
        assert_eq!(next_of(Came::OverCap { running: 1 }), Next::StopBatch);
        assert_eq!(pause_of(&next_of(Came::NotStopped)), (CAP_PAUSE, false));
        assert_eq!(pause_of(&next_of(Came::Waiting)), (Duration::ZERO, false));
    }

    #[test]
    fn only_what_was_set_aside_wakes_who_waits_for_money() {
        let down = failed(503, Again::NotAsked(None));
        assert_eq!((Came::Failed(down).money(), Came::Completed.money()), (Money::Sufficed, Money::Sufficed));
        for freed in [Came::Failed(TaskError::Preempted), Came::NoResult, Came::Lost] {
            assert_eq!(freed.money(), Money::Freed, "{freed:?}");
        }
        let refused = Came::Failed(CapError::TooLow.into());
        assert_eq!((refused.money(), Came::Stopping.money()), (Money::Untouched, Money::Untouched));
    }

    #[test]
    fn every_fault_of_a_task_is_told_in_full() {
        let invalid = InvalidRequest { message: "bad".to_owned(), param: Some("n".to_owned()), position: None };
        let model = || "m".to_owned();
        let (needs, param) = (Capability::Chat, "max_tokens");
        let fault = "invalid_request_error";
        let table: [(TaskError, _); 5] = [
            (AdmitError::Invalid(invalid).into(), (400, fault, Some("n"), "invalid_request", "bad")),
            (
                AdmitError::ModelNotFound { model: model() }.into(),
                (404, fault, Some("model"), "model_not_found", "The model `m` is no longer served here."),
            ),
            (
                AdmitError::NotCapable { model: model(), needs }.into(),
                (400, fault, Some("model"), "invalid_request", "The model `m` does not serve chat."),
            ),
            (
                AdmitError::OverModelLimit { param, asked: 9, limit: 8 }.into(),
                (400, fault, Some(param), "invalid_request", "`max_tokens` is 9; the model has at most 8."),
            ),
            (
                ReserveError::from(PurseError::CallerGone).into(),
                (401, fault, None, "unauthorized", "The account is gone."),
            ),
        ];
        for (error, expected) in table {
            let Next::Fail(end) = after(error, 1, 3, 0) else { panic!("tried again") };
            let EndError { status, kind, param, code, message } = end;
            let told = (status.unwrap(), kind.as_deref().unwrap(), param.as_deref(), code.as_str(), message.as_str());
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn pauses_stay_bounded_however_often_a_task_was_tried() {
        for attempt in [1, 17, 40, u32::MAX - 1] {
            let next = after(failed(500, Again::After(None)), attempt, u32::MAX, u32::MAX);
            assert!(pause_of(&next).0 <= PAUSE_MAX);
        }
    }
}
