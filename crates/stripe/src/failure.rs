//! Holds: how a call of Stripe's can fail, and whether its outcome is known then.

use std::time::Duration;

use serde_json::Value;

use crate::{
    members::{Members, Missing},
    words::words,
};

/// What an operator is shown of Stripe's own words, at most.
const MAX_MESSAGE_CHARS: usize = 500;

/// A call did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// There is no connection to Stripe: nothing was sent.
    #[error("Stripe cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke after the request had begun. What a POST did is unknown.
    #[error("the connection to Stripe broke")]
    Broken(#[source] reqwest::Error),
    /// No whole answer in time. What a POST did is unknown.
    #[error("Stripe did not answer in time")]
    TimedOut,
    /// Too many requests (429), a conflict with the same call under way (409), or Stripe's own failure (5xx).
    #[error("Stripe answered {status}: it is busy or failing")]
    Busy {
        /// The answer's status.
        status: u16,
        /// How long Stripe asks to wait.
        retry_after: Option<Duration>,
    },
    /// Stripe understood, and will not.
    #[error("Stripe refused: {0}")]
    Refused(Box<Refusal>),
    /// The answer is no JSON, too long, a redirect, or lacks what it must have. What a POST did is unknown.
    #[error("Stripe's answer cannot be read: {what}")]
    Unreadable {
        /// What is wrong with it, or the member that is missing.
        what: &'static str,
    },
    /// More objects than are read; nothing is cut off silently.
    #[error("Stripe has more than {most} objects here")]
    TooMany {
        /// Most that are read.
        most: usize,
    },
    /// What is to be asked for is no id of Stripe's; nothing was sent.
    #[error("this is no id of Stripe's")]
    NoId,
}

impl StripeError {
    /// Whether it is certain that a call which changes something changed nothing more than the error says. Where it is
    /// not, the same call with the same Idempotency-Key, or reading anew, tells.
    pub fn outcome_known(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Refused(_) | Self::NoId | Self::TooMany { .. } => true,
            Self::Busy { status, .. } => *status == 429,
            Self::Broken(_) | Self::TimedOut | Self::Unreadable { .. } => false,
        }
    }

    /// The refusal, where it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::TimedOut
            | Self::Busy { .. }
            | Self::Unreadable { .. }
            | Self::TooMany { .. }
            | Self::NoId => None,
        }
    }

    pub(crate) fn of_transport(cause: reqwest::Error) -> Self {
        let cause = cause.without_url();
        if cause.is_connect() {
            Self::Unreachable(cause)
        } else if cause.is_timeout() {
            Self::TimedOut
        } else {
            Self::Broken(cause)
        }
    }
}

impl From<Missing> for StripeError {
    fn from(Missing(what): Missing) -> Self {
        Self::Unreadable { what }
    }
}

words! {
    /// What kind of refusal it is.
    RefusalKind {
        /// The card or account was declined; see the codes.
        Card = "card_error",
        /// The request is wrong, or names what is not there.
        InvalidRequest = "invalid_request_error",
        /// This Idempotency-Key was used with other parameters.
        Idempotency = "idempotency_error",
        /// The key is not accepted.
        Authentication = "authentication_error",
    }
}

/// What Stripe says of a request that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} ({status}, {})", .message.as_deref().unwrap_or("no reason given"), .code.as_deref().unwrap_or(.kind.as_str()))]
pub struct Refusal {
    /// The answer's status, 4xx.
    pub status: u16,
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// Stripe's code, such as `card_declined`, `authentication_required` or `resource_missing`.
    pub code: Option<String>,
    /// Why a card was declined, such as `insufficient_funds`.
    pub decline_code: Option<String>,
    /// Stripe's words, for the operator and no customer.
    pub message: Option<String>,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// The payment intent that was made and declined.
    pub payment_intent: Option<String>,
    /// Stripe's id of the request, by which its support finds it.
    pub request_id: Option<String>,
}

impl Refusal {
    /// The payment was declined, or wants its owner's presence: 402, or the kind that says so.
    pub fn is_decline(&self) -> bool {
        self.status == 402 || self.kind == RefusalKind::Card
    }

    /// The bank wants its customer to confirm the payment in person.
    pub fn needs_customer(&self) -> bool {
        let asks = |code: &Option<String>| code.as_deref() == Some("authentication_required");
        asks(&self.code) || asks(&self.decline_code)
    }

    /// There is no such object with this key: never was, or is of the other mode (test or live).
    pub fn is_missing(&self) -> bool {
        self.status == 404 || self.code.as_deref() == Some("resource_missing")
    }

    pub(crate) fn of(status: u16, body: &Value, request_id: Option<String>) -> Self {
        let error = Members::of(body).within("error");
        let cut = |text: String| text.chars().take(MAX_MESSAGE_CHARS).collect();
        Self {
            status,
            kind: RefusalKind::parse(error.word("type")),
            code: error.text("code"),
            decline_code: error.text("decline_code"),
            message: error.text("message").map(cut),
            param: error.text("param"),
            payment_intent: error.id("payment_intent"),
            request_id,
        }
    }
}
