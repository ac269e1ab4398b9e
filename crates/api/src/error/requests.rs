//! Holds: what a client is told when its request gets no answer.

use std::borrow::Cow;

use batchin_domain::Amount;
use batchin_gateway::{
    AdmitError, AnswerError, DispatchError, Fenced, KeyedError, NoRoom, PurseError, Reader, ReserveError, SettleError,
    TakeError,
};
use batchin_openai::{Code, UpstreamError};
use http::StatusCode;

use super::{ApiError, SHORT_PAUSE, sentence};

impl From<AnswerError> for ApiError {
    fn from(cause: AnswerError) -> Self {
        match cause {
            AnswerError::Fenced(cause) => cause.into(),
            AnswerError::Take(cause) => cause.into(),
            AnswerError::Admit(cause) => cause.into(),
            AnswerError::Keyed(cause) => cause.into(),
            AnswerError::Kept(cause) => cause.into(),
            AnswerError::Reserve(cause) => cause.into(),
            AnswerError::OverShare { retry_after } => {
                let message = "This account has as many requests under way as the server gives to one account now; \
                               wait for some of them to end.";
                Self::over_share(message).retry_after(retry_after)
            }
            AnswerError::Dispatch(cause) => cause.into(),
            AnswerError::Settle(cause) => cause.into(),
        }
    }
}

impl From<Fenced> for ApiError {
    fn from(Fenced: Fenced) -> Self {
        Self::unavailable("This server cannot reach its ledger; try again in a moment.")
    }
}

impl From<TakeError> for ApiError {
    fn from(cause: TakeError) -> Self {
        match cause {
            TakeError::RateLimited(rate) => {
                let message = format!("This key may make {} requests a minute.", rate.limit);
                Self::new(Code::RateLimitExceeded, message).rate(rate).retry_after(rate.reset)
            }
            TakeError::Purse(cause) => cause.into(),
        }
    }
}

impl From<AdmitError> for ApiError {
    fn from(cause: AdmitError) -> Self {
        let mut error = Self::new(cause.code(), sentence(cause.message(Reader::Client)));
        error.0.param = cause.param().map(|param| Cow::Owned(param.to_owned()));
        match cause {
            AdmitError::Offline { retry_after } => error.retry_after(retry_after),
            AdmitError::Invalid(_)
            | AdmitError::ModelNotFound { .. }
            | AdmitError::NotCapable { .. }
            | AdmitError::OverModelLimit { .. } => error,
        }
    }
}

impl From<KeyedError> for ApiError {
    fn from(cause: KeyedError) -> Self {
        match cause {
            KeyedError::Mismatch => {
                let message = "This Idempotency-Key was used for another request; use a new one.";
                Self::new(Code::Conflict, message).permanent()
            }
            KeyedError::Running => {
                let message = "The first request with this Idempotency-Key is still running.";
                Self::new(Code::Conflict, message).retry_after(SHORT_PAUSE)
            }
            KeyedError::Crowded => {
                let message = "Many requests wait for the answer under this Idempotency-Key already; wait for theirs.";
                Self::over_share(message)
            }
            KeyedError::Cut => {
                let message =
                    "The request with this Idempotency-Key was carried out and its answer cannot be given again.";
                Self::new(Code::Conflict, message).permanent()
            }
            KeyedError::Fenced(cause) => cause.into(),
            KeyedError::Store(cause) => cause.into(),
        }
    }
}

impl From<ReserveError> for ApiError {
    fn from(cause: ReserveError) -> Self {
        match cause {
            ReserveError::BalanceTooLow { needed, available, affordable_output } => {
                balance_too_low(needed, available, affordable_output)
            }
            ReserveError::BudgetTooLow { needed, available } => budget_too_low(needed, available),
            ReserveError::Purse(cause) => cause.into(),
        }
    }
}

impl From<PurseError> for ApiError {
    fn from(cause: PurseError) -> Self {
        match cause {
            PurseError::CallerGone => Self::unauthorized("This key does not work any more."),
            PurseError::Fenced(cause) => cause.into(),
            PurseError::Store(cause) => cause.into(),
        }
    }
}

impl From<NoRoom> for ApiError {
    fn from(cause: NoRoom) -> Self {
        match cause {
            NoRoom::Busy { retry_after } => {
                Self::unavailable("All model servers are busy; try again in a moment.").retry_after(retry_after)
            }
            NoRoom::NoUpstream { retry_after } => {
                Self::unavailable("No model server can serve this model now.").retry_after(retry_after)
            }
        }
    }
}

impl From<DispatchError> for ApiError {
    fn from(cause: DispatchError) -> Self {
        match cause {
            DispatchError::NoRoom(cause) => cause.into(),
            DispatchError::Refused { status, error } => refused(status, *error),
            DispatchError::Failed => Self::new(Code::UpstreamError, "The model server failed."),
            DispatchError::NotFree { retry_after } => {
                let message = "The model servers had no room for a request of the tier flex; try again later, or without \
                               service_tier.";
                Self::new(Code::ResourceUnavailable, message).retry_after(retry_after)
            }
            DispatchError::TimedOut => Self::new(Code::UpstreamTimeout, "The model server did not answer in time."),
        }
    }
}

impl From<SettleError> for ApiError {
    fn from(cause: SettleError) -> Self {
        match cause {
            SettleError::Stopped => Self::unavailable("The request was stopped; try again."),
            SettleError::Fenced(cause) => cause.into(),
            SettleError::NotStorable => Self::internal(),
        }
    }
}

fn balance_too_low(needed: Amount, available: Amount, affordable_output: Option<u64>) -> ApiError {
    let advice = match affordable_output {
        Some(tokens) => format!("Add credit, or set max_tokens to at most {tokens}."),
        None => "Add credit.".to_owned(),
    };
    let message = format!(
        "The balance does not cover this request: it may cost up to {} cents, and {} cents are available. {advice}",
        needed.to_cents_text(),
        available.to_cents_text()
    );
    ApiError::new(Code::PaymentRequired, message).permanent().unpaid(needed.saturating_sub(available))
}

/// Money in the balance would not help.
fn budget_too_low(needed: Amount, available: Amount) -> ApiError {
    let message = format!(
        "The key's monthly budget does not cover this request: it may cost up to {} cents, and {} cents are left \
         of the month. Raise the budget or lower max_tokens.",
        needed.to_cents_text(),
        available.to_cents_text()
    );
    ApiError::new(Code::PaymentRequired, message).permanent()
}

/// What a model server says of the request, with 400 or what else is about a body.
fn refused(status: u16, error: UpstreamError) -> ApiError {
    let mut shown = ApiError::new(Code::InvalidRequest, error.message);
    shown.0.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    if let Some(code) = error.code {
        shown.0.code = Cow::Owned(code);
    }
    shown.0.param = error.param.map(Cow::Owned);
    shown
}
