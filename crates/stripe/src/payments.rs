//! Holds: payment intents: reading one, and charging a saved payment method.

use std::ops::RangeInclusive;

use crate::{
    charges::Charge,
    client::{Stripe, is_id, path_of},
    failure::StripeError,
    form::Form,
    members::{Members, Missing},
    words::words,
};

/// Most payment intents of one customer that are looked through for one.
const MAX_PAYMENTS: usize = 1_000;

/// The member of Stripe's metadata that names the top-up.
pub(crate) const TOPUP: &str = "batchin_topup";

words! {
    /// How far a payment is.
    PaymentIntentStatus {
        /// Nothing tried yet, or what was tried failed.
        RequiresPaymentMethod = "requires_payment_method",
        /// To be confirmed.
        RequiresConfirmation = "requires_confirmation",
        /// The buyer must do something.
        RequiresAction = "requires_action",
        /// Under way, for days with some methods.
        Processing = "processing",
        /// Authorized and not taken.
        RequiresCapture = "requires_capture",
        /// Ended without money.
        Canceled = "canceled",
        /// Paid.
        Succeeded = "succeeded",
    }
}

/// Why the last try of a payment failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentFault {
    /// Such as `card_declined`.
    pub code: Option<String>,
    /// Such as `insufficient_funds`.
    pub decline_code: Option<String>,
}

/// A payment intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// `pi_…`.
    pub id: String,
    /// How far it is.
    pub status: PaymentIntentStatus,
    /// What is asked for, in the currency's smallest unit.
    pub amount: i64,
    /// What was received of it.
    pub amount_received: i64,
    /// In lower case.
    pub currency: String,
    /// Real money, and no test.
    pub livemode: bool,
    /// Seconds since 1970.
    pub created: Option<i64>,
    /// `cus_…`.
    pub customer: Option<String>,
    /// The top-up that its metadata names.
    pub topup: Option<String>,
    /// `pm_…`.
    pub payment_method: Option<String>,
    /// The latest charge's id.
    pub latest_charge: Option<String>,
    /// The latest charge itself, where the answer has it: those of this crate's calls do.
    pub charge: Option<Charge>,
    /// Why the last try failed.
    pub last_error: Option<PaymentFault>,
}

impl Payment {
    pub(crate) fn of(payment: Members<'_>) -> Result<Self, Missing> {
        let fault =
            |error: Members<'_>| PaymentFault { code: error.text("code"), decline_code: error.text("decline_code") };
        Ok(Self {
            id: payment.needed_text("id")?,
            status: PaymentIntentStatus::parse(payment.word("status")),
            amount: payment.needed_integer("amount")?,
            amount_received: payment.needed_integer("amount_received")?,
            currency: payment.currency("currency").ok_or(Missing("currency"))?,
            livemode: payment.needed_flag("livemode")?,
            created: payment.integer("created")?,
            customer: payment.id("customer"),
            topup: payment.within("metadata").text(TOPUP),
            payment_method: payment.id("payment_method"),
            latest_charge: payment.id("latest_charge"),
            charge: payment.object("latest_charge").map(Charge::of).transpose()?,
            last_error: payment.object("last_payment_error").map(fault),
        })
    }
}

/// A charge of a saved payment method, without its owner's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCharge {
    /// The top-up's id: reference, and behind `topup:` the Idempotency-Key. A further try is a further top-up.
    pub topup: String,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// In lower case: `usd`.
    pub currency: String,
    /// `cus_…`.
    pub customer: String,
    /// `pm_…`, saved for this customer.
    pub payment_method: String,
    /// What the customer reads on Stripe's receipt.
    pub description: String,
}

impl Stripe {
    /// Charges a saved payment method now. A decline, and a bank that wants its customer, is [`StripeError::Refused`] with
    /// the payment intent. Some methods only begin: `Processing` becomes `Succeeded` days later, or fails.
    pub async fn charge_saved(&self, charge: &NewCharge) -> Result<Payment, StripeError> {
        let form = Form::new()
            .with_number("amount", charge.amount)
            .with("currency", &charge.currency)
            .with("customer", &charge.customer)
            .with("payment_method", &charge.payment_method)
            .with("description", &charge.description)
            .with("off_session", "true")
            .with("confirm", "true")
            .with("automatic_payment_methods[enabled]", "true")
            // Nobody is there to be sent anywhere.
            .with("automatic_payment_methods[allow_redirects]", "never")
            .with(&format!("metadata[{TOPUP}]"), &charge.topup)
            .with("expand[]", "latest_charge");
        let answered = self.post("/v1/payment_intents", form, &format!("topup:{}", charge.topup)).await?;
        Ok(Payment::of(Members::of(&answered))?)
    }

    /// Reads a payment intent, with its latest charge.
    pub async fn payment(&self, id: &str) -> Result<Payment, StripeError> {
        let answered =
            self.get(&path_of("payment_intents", id)?, Form::new().with("expand[]", "latest_charge")).await?;
        Ok(Payment::of(Members::of(&answered))?)
    }

    /// The payment intent of a top-up among those of a customer made between two times, in seconds since 1970; its charge is not
    /// there in full. More than a thousand of the customer are [`StripeError::TooMany`].
    pub async fn find_payment(
        &self,
        topup: &str,
        customer: &str,
        created: RangeInclusive<i64>,
    ) -> Result<Option<Payment>, StripeError> {
        if !is_id(customer) {
            return Err(StripeError::NoId);
        }
        let query = || {
            let form = Form::new().with("customer", customer);
            form.with_number("created[gte]", *created.start()).with_number("created[lte]", *created.end())
        };
        let pick = |payment: Members<'_>| {
            let is_it = payment.within("metadata").text(TOPUP).as_deref() == Some(topup);
            Ok(is_it.then(|| Payment::of(payment)).transpose()?)
        };
        self.walk("/v1/payment_intents", query, MAX_PAYMENTS, pick).await
    }

    /// Reads a charge, which names its payment intent: for events that name the charge alone.
    pub async fn charge(&self, id: &str) -> Result<Charge, StripeError> {
        let answered = self.get(&path_of("charges", id)?, Form::new()).await?;
        Ok(Charge::of(Members::of(&answered))?)
    }
}
