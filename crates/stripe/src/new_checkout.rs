//! Holds: opening Stripe's checkout, to be paid at or to save a payment method with.

use crate::{checkouts::Checkout, client::Stripe, failure::StripeError, form::Form, members::Members, payments::TOPUP};

/// The member of Stripe's metadata that names what a payment method is saved for.
const SETUP: &str = "batchin_setup";

/// Who pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Customer {
    /// `cus_…`, from an earlier checkout.
    Known(String),
    /// Stripe makes a customer, with this address of mail filled in.
    New {
        /// Where the receipt goes.
        email: Option<String>,
    },
}

/// A checkout to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCheckout {
    /// The top-up's id: reference, and behind `topup:` the Idempotency-Key.
    pub topup: String,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// In lower case: `usd`.
    pub currency: String,
    /// What the buyer reads that it is.
    pub product: String,
    /// Where the buyer comes back to; may have `{CHECKOUT_SESSION_ID}` in it.
    pub success_url: String,
    /// Where a buyer who does not pay comes back to.
    pub cancel_url: String,
    /// Who pays.
    pub customer: Customer,
    /// Keep the payment method, to be charged without the buyer later.
    pub save_method: bool,
}

/// A checkout that only saves a payment method, to be charged without its owner later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSetup {
    /// Our id of this attempt: reference, and behind `setup:` the Idempotency-Key.
    pub reference: String,
    /// In lower case: `usd`.
    pub currency: String,
    /// Where the buyer comes back to.
    pub success_url: String,
    /// Where a buyer who saves nothing comes back to.
    pub cancel_url: String,
    /// Whose payment method it is.
    pub customer: Customer,
}

impl Stripe {
    /// Opens a checkout. Where the outcome stays unknown, the same call within 24 hours makes no second one; after that
    /// [`Stripe::find_checkout`] tells whether there is one.
    pub async fn create_checkout(&self, new: &NewCheckout) -> Result<Checkout, StripeError> {
        let form = Form::new()
            .with("mode", "payment")
            .with("client_reference_id", &new.topup)
            .with(&format!("metadata[{TOPUP}]"), &new.topup)
            .with(&format!("payment_intent_data[metadata][{TOPUP}]"), &new.topup)
            .with_some("payment_intent_data[setup_future_usage]", new.save_method.then_some("off_session"))
            .with("line_items[0][quantity]", "1")
            .with("line_items[0][price_data][currency]", &new.currency)
            .with_number("line_items[0][price_data][unit_amount]", new.amount)
            .with("line_items[0][price_data][product_data][name]", &new.product)
            .with("success_url", &new.success_url)
            .with("cancel_url", &new.cancel_url)
            .with("billing_address_collection", "required")
            .with("tax_id_collection[enabled]", "true")
            .with("invoice_creation[enabled]", "true")
            // What is paid is what is credited, in the same currency.
            .with("adaptive_pricing[enabled]", "false");
        let form = match &new.customer {
            // Stripe refuses to collect tax ids of a known customer unless it may write down name and address with them.
            Customer::Known(id) => {
                form.with("customer", id).with("customer_update[name]", "auto").with("customer_update[address]", "auto")
            }
            Customer::New { email } => unknown(form, email.as_deref()),
        };
        let answered = self.post("/v1/checkout/sessions", form, &format!("topup:{}", new.topup)).await?;
        Ok(Checkout::of(Members::of(&answered))?)
    }

    /// Opens a checkout that saves a payment method and takes no money.
    pub async fn create_setup(&self, new: &NewSetup) -> Result<Checkout, StripeError> {
        let form = Form::new()
            .with("mode", "setup")
            .with("currency", &new.currency)
            .with("client_reference_id", &new.reference)
            .with(&format!("metadata[{SETUP}]"), &new.reference)
            .with(&format!("setup_intent_data[metadata][{SETUP}]"), &new.reference)
            .with("success_url", &new.success_url)
            .with("cancel_url", &new.cancel_url);
        let form = match &new.customer {
            Customer::Known(id) => form.with("customer", id),
            Customer::New { email } => unknown(form, email.as_deref()),
        };
        let answered = self.post("/v1/checkout/sessions", form, &format!("setup:{}", new.reference)).await?;
        Ok(Checkout::of(Members::of(&answered))?)
    }
}

fn unknown(form: Form, email: Option<&str>) -> Form {
    form.with("customer_creation", "always").with_some("customer_email", email)
}
