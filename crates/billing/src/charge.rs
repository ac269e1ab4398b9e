//! Holds: charging a saved card for a payment that was begun, and finding out whether that was done.

use std::time::Duration;

use batchin_domain::TopupStatus;
use batchin_store::{TopupDetails, TopupRow};
use batchin_stripe::{NewCharge, Payment, Refusal, StripeError};

use crate::{
    Billing,
    billing::Cards,
    options::{CURRENCY, cents_of},
    reading::{Comes, Snapshot, comes_to},
    reconcile::{CLOCKS, KEY_LIFE, ReconcileError},
};

/// So long before its Idempotency-Key is forgotten is a charge asked for the last time.
const LEFT_ALONE: Duration = Duration::from_secs(3_600);

impl Billing {
    /// Charges the saved card of a payment that was begun, or hears what became of that: under its key Stripe does it once.
    /// Where the answer does not tell, Stripe's list of the customer's payments does; and what is not there once the key is as
    /// good as forgotten was never charged.
    pub(crate) async fn charge(&self, cards: &Cards, topup: &TopupRow) -> Result<Comes, ReconcileError> {
        let (Some(customer), Some(method), Some(amount)) = (&topup.customer, &topup.method, cents_of(topup.amount))
        else {
            return Ok(failed("no_payment_method", None));
        };
        let last_try = topup.created_at.after(KEY_LIFE).before(LEFT_ALONE);
        let unclear = if self.now() < last_try {
            let asked = NewCharge {
                topup: topup.id.uuid().to_string(),
                amount,
                currency: CURRENCY.to_owned(),
                customer: customer.clone(),
                payment_method: method.clone(),
                description: cards.options.product.clone(),
            };
            match cards.stripe.charge_saved(&asked).await {
                Ok(payment) => {
                    batchin_faults::point("topup.charged");
                    return Ok(self.charged(cards, topup, payment));
                }
                Err(cause) => Some(cause),
            }
        } else {
            None
        };
        if let Some(refusal) = unclear.as_ref().and_then(StripeError::refusal).filter(|refusal| refusal.is_decline()) {
            let word = refusal.decline_code.clone().or_else(|| refusal.code.clone());
            return Ok(failed(word.as_deref().unwrap_or("refused"), refusal.payment_intent.clone()));
        }
        // A failure of Stripe's own is told again under its key although the card was charged, and a setting that was changed
        // since makes another call of this one: only looking tells.
        let created =
            topup.created_at.before(CLOCKS).seconds()..=topup.created_at.after(KEY_LIFE).after(CLOCKS).seconds();
        let found = cards.stripe.find_payment(&topup.id.uuid().to_string(), customer, created).await?;
        match (found, unclear) {
            (Some(found), _) => Ok(self.charged(cards, topup, cards.stripe.payment(&found.id).await?)),
            (None, None) => Ok(failed("not_charged", None)),
            (None, Some(cause)) if cause.refusal().is_some_and(is_without_method) => {
                Ok(failed("no_payment_method", None))
            }
            (None, Some(cause)) => Err(cause.into()),
        }
    }

    /// What went back of it meanwhile is read the next time.
    fn charged(&self, cards: &Cards, topup: &TopupRow, payment: Payment) -> Comes {
        let snapshot = Snapshot { payment: Some(payment), ..Snapshot::default() };
        comes_to(topup, &snapshot, cards.options.is_live(), || self.ids().uuid())
    }
}

fn failed(why: &str, payment: Option<String>) -> Comes {
    let details = TopupDetails { failure: Some(why.to_owned()), payment, ..TopupDetails::default() };
    Comes::only(TopupStatus::Failed, details)
}

/// What was saved is gone: asking again brings nothing else.
fn is_without_method(refusal: &Refusal) -> bool {
    refusal.is_missing() || matches!(refusal.param.as_deref(), Some("customer" | "payment_method"))
}
