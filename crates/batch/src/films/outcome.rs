//! Holds: every decision about a film that is made: what comes next, after whatever came of it. Pure.

use std::time::Duration;

use batchin_gateway::{AdmitError, Again, PurseError, Reader, ReserveError, SettleError, TaskError, UpstreamFailure};
use batchin_openai::{Code, UpstreamError};
use batchin_store::{FilmError, WAITS_FOR_BALANCE, WAITS_FOR_BUDGET};

/// Servers that are asked for one film, one after the other, when they fail or forget it: the third shows that it is no
/// chance.
pub(crate) const MAX_TRIES: u32 = 3;
/// Before a job is looked at again for which there is no room, or whose node is out of touch.
const SOON: Duration = Duration::from_secs(1);
/// Before a film is fetched again that there was no room for, or that the store did not take.
const NOT_STORED: Duration = Duration::from_secs(30);
/// Before it is tried again on a server that failed; doubles with each try.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest pause that a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// Before a job without money is asked again. Jobs are few.
const MONEY: Duration = Duration::from_secs(5);

/// Codes by which servers of films say that they failed themselves.
const SERVER_FAULTS: [&str; 4] = ["server_error", "internal_error", "internal_server_error", "generation_failed"];

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Came {
    /// Its film is there and paid for.
    Finished,
    /// It was stopped, or is another node's.
    Lost,
    /// This node stops; the server goes on.
    Stopping,
    /// Who pays could not be read, or something of it could not be noted.
    NotNoted,
    /// It could not be begun.
    NotBegun(TaskError),
    /// Servers forgot it, or it vanished on the way here, as often as may be.
    LostTooOften,
    /// The server says that there will be none.
    Failed(Box<UpstreamError>),
    /// The server takes too long.
    TimedOut,
    /// What came is larger than a film may be.
    TooLarge,
    /// It could not be stored here.
    NotStored,
    /// The ledger did not take it.
    NotSettled(SettleError),
}

/// What is done next about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is over, or no longer ours.
    Leave,
    /// It waits.
    Again {
        /// Until it is looked at again.
        pause: Duration,
        /// What its owner can change.
        blocked: Option<&'static str>,
        /// Whether this was a try.
        counts: bool,
    },
    /// There will be no film.
    Fail(FilmError),
}

/// Decides, after so many tries before this one.
pub(crate) fn next(came: Came, tries: u32) -> Next {
    let again = |pause| Next::Again { pause, blocked: None, counts: false };
    match came {
        Came::Finished | Came::Lost => Next::Leave,
        Came::Stopping => again(Duration::ZERO),
        Came::NotNoted => again(SOON),
        Came::NotStored => again(NOT_STORED),
        Came::NotBegun(cause) => not_begun(cause, tries),
        Came::LostTooOften => {
            fail(Code::UpstreamError, "The model servers lost the film each time they were asked for it.")
        }
        Came::Failed(said) => failed(*said),
        Came::TimedOut => fail(Code::UpstreamTimeout, "The model server did not make the film in time."),
        Came::TooLarge => fail(Code::UpstreamError, "The film is larger than is taken."),
        Came::NotSettled(SettleError::Stopped) => Next::Leave,
        Came::NotSettled(SettleError::Fenced(_)) => again(SOON),
        // What the store refuses it refuses again.
        Came::NotSettled(SettleError::NotStorable) => counted(tries, AGAIN, internal),
    }
}

fn not_begun(cause: TaskError, tries: u32) -> Next {
    let wait = |blocked| Next::Again { pause: MONEY, blocked: Some(blocked), counts: false };
    let soon = Next::Again { pause: SOON, blocked: None, counts: false };
    match cause {
        TaskError::Admit(AdmitError::Offline { retry_after }) => {
            Next::Again { pause: retry_after.min(PAUSE_MAX), blocked: None, counts: false }
        }
        TaskError::Admit(cause) => fail(cause.code(), &cause.message(Reader::TaskOwner)),
        TaskError::Reserve(ReserveError::BalanceTooLow { .. }) => wait(WAITS_FOR_BALANCE),
        TaskError::Reserve(ReserveError::BudgetTooLow { .. }) => wait(WAITS_FOR_BUDGET),
        TaskError::Reserve(ReserveError::Purse(PurseError::CallerGone)) => {
            fail(Code::Unauthorized, "The account is gone.")
        }
        TaskError::Upstream(failure) => after_upstream(failure, tries),
        TaskError::Reserve(ReserveError::Purse(PurseError::Fenced(_) | PurseError::Store(_)))
        | TaskError::NoRoom(_)
        | TaskError::Preempted
        | TaskError::Cap(_)
        | TaskError::Fenced(_) => soon,
    }
}

fn after_upstream(failure: UpstreamFailure, tries: u32) -> Next {
    let pause = |asked: Option<Duration>| asked.unwrap_or_default().min(PAUSE_MAX) + AGAIN * (1 << tries.min(5));
    match (failure.again, failure.said) {
        (Again::NotAsked(asked), _) => Next::Again { pause: pause(asked), blocked: None, counts: false },
        (Again::After(asked), _) => counted(tries, pause(asked), || {
            if failure.timed_out {
                fail(Code::UpstreamTimeout, "The model servers did not answer in time.")
            } else {
                fail(Code::UpstreamError, "The model servers failed.")
            }
        }),
        (Again::Never, Some(said)) => told(*said),
        (Again::Never, None) => fail(Code::UpstreamError, "The model server failed."),
    }
}

/// Tried again, up to the bound.
fn counted(tries: u32, pause: Duration, end: impl FnOnce() -> Next) -> Next {
    if tries + 1 < MAX_TRIES { Next::Again { pause, blocked: None, counts: true } } else { end() }
}

/// What a server says of a job that it did not make: its own words where the request is at fault.
fn failed(said: UpstreamError) -> Next {
    let is_of_server = said.code.as_deref().is_some_and(|code| SERVER_FAULTS.contains(&code));
    let is_told = said.status.is_some() || said.code.is_some();
    let is_of_request = said.status.is_none_or(|status| status < 500) && is_told && !is_of_server;
    if !is_of_request {
        return fail(Code::UpstreamError, "The model server failed at the film.");
    }
    told(said)
}

/// In a server's own words, or in ours where no server can be asked: the request is at fault.
fn told(said: UpstreamError) -> Next {
    let code = said.code.unwrap_or_else(|| Code::InvalidRequest.name().to_owned());
    Next::Fail(FilmError { code, message: said.message })
}

fn internal() -> Next {
    fail(Code::Internal, "The film could not be stored.")
}

fn fail(code: Code, message: &str) -> Next {
    Next::Fail(FilmError { code: code.name().to_owned(), message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use batchin_domain::Amount;

    use super::*;

    fn upstream(again: Again) -> Came {
        let failure = UpstreamFailure { status: Some(500), timed_out: false, again, said: None, alike: false };
        Came::NotBegun(TaskError::Upstream(failure))
    }

    fn code(next: Next) -> String {
        match next {
            Next::Fail(error) => error.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_that_fail_are_asked_three_times_in_all() {
        for tries in 0..MAX_TRIES - 1 {
            let next = next(upstream(Again::After(None)), tries);
            assert!(matches!(next, Next::Again { counts: true, .. }), "{tries}: {next:?}");
        }
        assert_eq!(code(next(upstream(Again::After(None)), MAX_TRIES - 1)), "upstream_error");
        assert!(matches!(next(upstream(Again::NotAsked(None)), 9), Next::Again { counts: false, .. }));
    }

    #[test]
    fn a_job_waits_for_money_and_says_so() {
        let amount = Amount::ZERO;
        let short = ReserveError::BalanceTooLow { needed: amount, available: amount, affordable_output: None };
        let waits = |blocked| Next::Again { pause: MONEY, blocked: Some(blocked), counts: false };
        assert_eq!(next(Came::NotBegun(short.into()), 0), waits(WAITS_FOR_BALANCE));
        let short = ReserveError::BudgetTooLow { needed: amount, available: amount };
        assert_eq!(next(Came::NotBegun(short.into()), 0), waits(WAITS_FOR_BUDGET));
    }

    #[test]
    fn a_server_s_own_words_are_told_where_the_request_is_at_fault() {
        let said = |status, code: Option<&str>| {
            let message = "the prompt is unsafe".to_owned();
            let code = code.map(str::to_owned);
            Came::Failed(Box::new(UpstreamError { message, param: None, code, kind: None, status }))
        };
        assert_eq!(code(next(said(Some(400), None), 0)), "invalid_request");
        assert_eq!(code(next(said(None, Some("moderation_blocked")), 0)), "moderation_blocked");
        for hidden in [
            said(Some(500), None),
            said(Some(503), Some("oom")),
            said(None, None),
            said(None, Some("server_error")),
            said(None, Some("generation_failed")),
        ] {
            let Next::Fail(error) = next(hidden, 0) else { panic!("no end") };
            assert_eq!((error.code.as_str(), error.message.contains("unsafe")), ("upstream_error", false));
        }
    }

    #[test]
    fn what_no_server_takes_is_told() {
        let said = UpstreamError {
            message: "`prompt` must not".to_owned(),
            param: None,
            code: None,
            kind: None,
            status: None,
        };
        let failure = UpstreamFailure {
            status: None,
            timed_out: false,
            again: Again::Never,
            said: Some(Box::new(said)),
            alike: false,
        };
        let Next::Fail(error) = next(Came::NotBegun(TaskError::Upstream(failure)), 0) else { panic!("no end") };
        assert_eq!((error.code.as_str(), error.message.as_str()), ("invalid_request", "`prompt` must not"));
    }

    #[test]
    fn what_is_not_ours_is_left() {
        assert_eq!(next(Came::Lost, 0), Next::Leave);
        assert_eq!(next(Came::NotSettled(SettleError::Stopped), 0), Next::Leave);
        assert_eq!(next(Came::Finished, 2), Next::Leave);
    }
}
