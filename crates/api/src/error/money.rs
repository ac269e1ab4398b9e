//! Holds: what a client is told when a payment cannot be asked for, and Stripe when its report is not taken.

use std::time::Duration;

use batchin_billing::{AddressError, CheckoutError, ReportError, X402Error};
use batchin_domain::Amount;
use batchin_openai::Code;
use batchin_store::{CorrectError, GrantError};
use tracing::error;

use super::ApiError;

/// Before the facilitator is tried again.
const FACILITATOR_PAUSE: Duration = Duration::from_secs(5);
/// Before Stripe is tried again.
const STRIPE_PAUSE: Duration = Duration::from_secs(5);
const NOT_SET_UP: &str =
    "No payments by card are set up here. Operators: set stripe.secret_key and stripe.webhook_secret.";

impl From<CheckoutError> for ApiError {
    fn from(cause: CheckoutError) -> Self {
        match cause {
            CheckoutError::NotSetUp => Self::new(Code::ServiceUnavailable, NOT_SET_UP).permanent(),
            CheckoutError::NotCents => {
                Self::invalid("amount_cents", "`amount_cents` must be a whole number of US cents, such as 2500.")
            }
            CheckoutError::OutOfBounds { min, max } => {
                Self::invalid("amount_cents", format!("`amount_cents` must be {min} to {max}."))
            }
            CheckoutError::NoAccount => Self::not_found("account"),
            CheckoutError::TooMany { most } => {
                let message = format!(
                    "This account has {most} payments open; pay one of them, or wait until they expire, within a day."
                );
                Self::new(Code::Conflict, message).permanent()
            }
            CheckoutError::Unavailable => {
                let message = "Stripe does not answer; nothing was paid. Try again in a moment.";
                Self::new(Code::ServiceUnavailable, message).retry_after(STRIPE_PAUSE)
            }
            CheckoutError::Refused => {
                let message = "Stripe refused to open a payment; nothing was paid. The operator's log says why.";
                Self::new(Code::ServiceUnavailable, message).permanent()
            }
            CheckoutError::Store(cause) => cause.into(),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(cause: ReportError) -> Self {
        match cause {
            ReportError::NotSetUp => Self::new(Code::ServiceUnavailable, NOT_SET_UP),
            ReportError::Signature(cause) => {
                Self::invalid("Stripe-Signature", format!("The header Stripe-Signature does not fit: {cause}."))
            }
            ReportError::Event(cause) => {
                Self::new(Code::InvalidRequest, format!("This is no event of Stripe's: {cause}."))
            }
            ReportError::NotText => Self::new(Code::InvalidRequest, "This is no event of Stripe's: it is not UTF-8."),
            ReportError::Full { retry_after } => {
                let message = "Too many reports come at once; send it again in a moment.";
                Self::new(Code::ServiceUnavailable, message).retry_after(retry_after)
            }
            ReportError::NotStored => Self::unavailable("The report could not be stored; send it again in a moment."),
        }
    }
}

impl From<X402Error> for ApiError {
    fn from(cause: X402Error) -> Self {
        match cause {
            X402Error::NotSetUp => {
                let message = "No payments over x402 are set up here. Operators: set usdc.xpub, usdc.chains and \
                               usdc.x402.facilitator.";
                Self::new(Code::ServiceUnavailable, message).permanent()
            }
            X402Error::Form(cause) => {
                let message = format!("The header PAYMENT-SIGNATURE does not fit: {cause}. Nothing was paid.");
                Self::invalid("PAYMENT-SIGNATURE", message)
            }
            X402Error::Fault(cause) => {
                let message = format!(
                    "This payment is not taken: {cause}. Nothing was paid; PAYMENT-REQUIRED says what is asked for."
                );
                let error = Self::new(Code::PaymentRequired, message).at("PAYMENT-SIGNATURE").permanent();
                error.for_payer(Amount::ZERO, cause.reason())
            }
            X402Error::Refused { reason } => {
                let message = format!("The facilitator does not carry this payment out: {reason}. Nothing was paid.");
                let error = Self::new(Code::PaymentRequired, message).at("PAYMENT-SIGNATURE").permanent();
                error.for_payer(Amount::ZERO, reason)
            }
            X402Error::Used => {
                let message = "This signature was used before and pays nothing more; GET /v1/topup/usdc/deposits shows what \
                               came.";
                Self::new(Code::Conflict, message).at("PAYMENT-SIGNATURE").permanent()
            }
            X402Error::Unavailable(_) => {
                let message = "The facilitator cannot be asked; nothing was paid. Try again in a moment.";
                Self::new(Code::ServiceUnavailable, message).retry_after(FACILITATOR_PAUSE)
            }
            X402Error::Unsure(_) => {
                let message = "Whether this payment was carried out is not known, for the facilitator did not answer. Send the \
                               same PAYMENT-SIGNATURE again: it pays once at most, and a new one would pay once more. GET \
                               /v1/topup/usdc/deposits shows what came.";
                Self::new(Code::ServiceUnavailable, message).retry_after(FACILITATOR_PAUSE)
            }
            X402Error::Address(cause) => cause.into(),
        }
    }
}

impl ApiError {
    /// What to pay stands in a header.
    pub(crate) fn to_be_paid(wished: Amount) -> Self {
        let message = "Pay with x402 version 2: the header PAYMENT-REQUIRED says what to sign; send this call again with \
                       PAYMENT-SIGNATURE.";
        Self::new(Code::PaymentRequired, message).permanent().for_payer(wished, "PAYMENT-SIGNATURE is missing")
    }
}

impl From<AddressError> for ApiError {
    fn from(cause: AddressError) -> Self {
        match cause {
            AddressError::NoChain => Self::not_found("chain"),
            AddressError::Key(cause) => {
                error!(error = %cause, "an address could not be made");
                Self::internal()
            }
            AddressError::Store(cause) => cause.into(),
        }
    }
}

impl From<GrantError> for ApiError {
    fn from(cause: GrantError) -> Self {
        match cause {
            GrantError::NoAccount => Self::not_found("account"),
            GrantError::Nothing => Self::invalid("amount_cents", "`amount_cents` must not be 0."),
            GrantError::ReferenceTaken => reference_taken(),
            GrantError::Overflow => {
                Self::invalid("amount_cents", "`amount_cents` is more than the account can hold with what it has.")
            }
            GrantError::Store(cause) => cause.into(),
        }
    }
}

impl From<CorrectError> for ApiError {
    fn from(cause: CorrectError) -> Self {
        match cause {
            CorrectError::NoAccount => Self::not_found("account"),
            CorrectError::Nothing => Self::invalid("amount_cents", "`amount_cents` must not be 0."),
            CorrectError::Insufficient { available } => {
                let message = format!(
                    "Only {} cents of this account are neither spent nor set aside for requests.",
                    available.to_cents_text()
                );
                Self::new(Code::Conflict, message).at("amount_cents").permanent()
            }
            CorrectError::ReferenceTaken => reference_taken(),
            CorrectError::NotReversible => Self::invalid(
                "reverses",
                "`reverses` must be a grant of this account of which at least as much is left as is to be taken back.",
            ),
            CorrectError::Store(cause) => cause.into(),
        }
    }
}

fn reference_taken() -> ApiError {
    ApiError::new(Code::Conflict, "This reference belongs to another movement.").at("reference").permanent()
}
