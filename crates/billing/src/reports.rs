//! Holds: taking reports of Stripe: verified, stored, and only then acknowledged.

use std::time::Duration;

use batchin_store::NewStripeEvent;
use batchin_stripe::{BadEvent, Event, SignatureError, Subject, TOLERANCE_SECONDS, verify};

use crate::{Billing, intake::NotKept};

/// Why a report was not taken. It is not stored.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operator has not set up Stripe.
    #[error("no payments by card are set up")]
    NotSetUp,
    /// It is not signed as Stripe signs.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is signed and no event.
    #[error(transparent)]
    Event(#[from] BadEvent),
    /// It is signed and no text.
    #[error("the event is no UTF-8")]
    NotText,
    /// Too many come at once.
    #[error("too many reports come at once")]
    Full {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The store failed.
    #[error("the report could not be stored")]
    NotStored,
}

impl From<NotKept> for ReportError {
    fn from(cause: NotKept) -> Self {
        match cause {
            NotKept::Full { retry_after } => Self::Full { retry_after },
            NotKept::NotStored => Self::NotStored,
        }
    }
}

impl Billing {
    /// Takes a report as it came, with its header `Stripe-Signature`. It is stored where this returns.
    pub async fn take_report(&self, body: &[u8], signature: &str) -> Result<(), ReportError> {
        let cards = self.cards().ok_or(ReportError::NotSetUp)?;
        let now = self.now().seconds();
        verify(body, signature, &cards.options.webhook_secrets, now, TOLERANCE_SECONDS)?;
        let event = Event::parse(body)?;
        let text = std::str::from_utf8(body).map_err(|_| ReportError::NotText)?;
        let (kind, is_due) = (event.kind.as_str().to_owned(), event.subject != Subject::None);
        Ok(cards.intake.keep(NewStripeEvent { id: event.id, kind, body: text.to_owned(), is_due }).await?)
    }
}
