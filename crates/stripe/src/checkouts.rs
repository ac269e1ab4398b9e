//! Holds: checkout sessions: reading one, and finding the one of a top-up.

use std::ops::RangeInclusive;

use crate::{
    charges::Card,
    client::{Stripe, is_id, path_of},
    failure::StripeError,
    form::Form,
    members::{Members, Missing},
    payments::{Payment, TOPUP},
    words::words,
};

/// Most sessions that are looked through for one: a hundred calls.
const MAX_SESSIONS: usize = 10_000;
/// What a session is read with. Each is there in one mode alone; Stripe leaves the others `null`.
const EXPANDED: [&str; 3] = ["payment_intent.latest_charge", "invoice", "setup_intent.payment_method"];

words! {
    /// What a checkout is for.
    Mode {
        /// To pay once.
        Payment = "payment",
        /// To save a payment method.
        Setup = "setup",
        /// To pay again and again; ours never are.
        Subscription = "subscription",
    }
}

words! {
    /// How far a checkout is.
    CheckoutStatus {
        /// It can be paid.
        Open = "open",
        /// The buyer is through; the money may still be under way.
        Complete = "complete",
        /// It can no longer be paid.
        Expired = "expired",
    }
}

words! {
    /// How far the money of a checkout is.
    PaymentStatus {
        /// It is there.
        Paid = "paid",
        /// It is not, or not yet.
        Unpaid = "unpaid",
        /// There is nothing to be paid.
        NoPaymentRequired = "no_payment_required",
    }
}

/// A postal address, as its owner gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Street or company.
    pub line1: Option<String>,
    /// The rest of the street.
    pub line2: Option<String>,
    /// Town.
    pub city: Option<String>,
    /// State, county or region.
    pub state: Option<String>,
    /// ZIP or postal code.
    pub postal_code: Option<String>,
    /// Two letters.
    pub country: Option<String>,
}

/// A tax number, such as a VAT number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaxId {
    /// `eu_vat`, `us_ein` and the like.
    pub kind: String,
    /// The number itself.
    pub value: String,
}

/// Who paid, as Stripe asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buyer {
    /// A person's or company's name.
    pub name: Option<String>,
    /// Where the receipt went.
    pub email: Option<String>,
    /// The billing address.
    pub address: Option<Address>,
    /// Tax numbers.
    pub tax_ids: Vec<TaxId>,
}

/// Stripe's invoice of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`.
    pub id: String,
    /// Its page, for the buyer.
    pub hosted_url: Option<String>,
    /// The number on it.
    pub number: Option<String>,
}

/// A payment method that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMethod {
    /// `pm_…`.
    pub id: String,
    /// What it is, as far as it may be shown.
    pub card: Option<Card>,
}

/// A checkout session. What it names is there in full where it was read by [`Stripe::checkout`], else perhaps by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// `cs_…`.
    pub id: String,
    /// Where the buyer pays; gone once the session is complete or expired.
    pub url: Option<String>,
    /// What it is for.
    pub mode: Mode,
    /// How far it is.
    pub status: CheckoutStatus,
    /// How far the money is.
    pub payment_status: PaymentStatus,
    /// In the currency's smallest unit; nothing in mode `setup`.
    pub amount_total: Option<i64>,
    /// In lower case.
    pub currency: Option<String>,
    /// Real money, and no test.
    pub livemode: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970.
    pub expires_at: Option<i64>,
    /// The top-up's id, or that of a setup.
    pub client_reference_id: Option<String>,
    /// The top-up that its metadata names.
    pub topup: Option<String>,
    /// `cus_…`; nothing until the buyer is through where Stripe makes the customer.
    pub customer: Option<String>,
    /// `pi_…`; nothing until the buyer tries to pay.
    pub payment_intent: Option<String>,
    /// The payment itself.
    pub payment: Option<Payment>,
    /// Who paid.
    pub buyer: Option<Buyer>,
    /// Stripe's receipt, for the buyer.
    pub receipt_url: Option<String>,
    /// Stripe's invoice, which may come some seconds after the payment.
    pub invoice: Option<Invoice>,
    /// What mode `setup` has saved.
    pub saved_method: Option<SavedMethod>,
}

impl Address {
    fn of(address: Members<'_>) -> Self {
        Self {
            line1: address.text("line1"),
            line2: address.text("line2"),
            city: address.text("city"),
            state: address.text("state"),
            postal_code: address.text("postal_code"),
            country: address.text("country"),
        }
    }
}

impl Buyer {
    fn of(details: Members<'_>) -> Self {
        let tax_id = |id: Members<'_>| Some(TaxId { kind: id.text("type")?, value: id.text("value")? });
        Self {
            name: details.text("name"),
            email: details.text("email"),
            address: details.object("address").map(Address::of),
            tax_ids: details.list("tax_ids").filter_map(tax_id).collect(),
        }
    }
}

impl Invoice {
    fn of(session: Members<'_>) -> Option<Self> {
        let invoice = session.within("invoice");
        Some(Self {
            id: session.id("invoice")?,
            hosted_url: invoice.text("hosted_invoice_url"),
            number: invoice.text("number"),
        })
    }
}

impl SavedMethod {
    fn of(session: Members<'_>) -> Option<Self> {
        let setup = session.object("setup_intent")?;
        Some(Self { id: setup.id("payment_method")?, card: Card::of(setup.within("payment_method")) })
    }
}

impl Checkout {
    pub(crate) fn of(session: Members<'_>) -> Result<Self, Missing> {
        let payment = session.object("payment_intent").map(Payment::of).transpose()?;
        let receipt_url = payment.as_ref().and_then(|payment| payment.charge.as_ref()?.receipt_url.clone());
        Ok(Self {
            id: session.needed_text("id")?,
            url: session.text("url"),
            mode: Mode::parse(session.word("mode")),
            status: CheckoutStatus::parse(session.word("status")),
            payment_status: PaymentStatus::parse(session.word("payment_status")),
            amount_total: session.integer("amount_total")?,
            currency: session.currency("currency"),
            livemode: session.needed_flag("livemode")?,
            created: session.needed_integer("created")?,
            expires_at: session.integer("expires_at")?,
            client_reference_id: session.text("client_reference_id"),
            topup: session.within("metadata").text(TOPUP),
            customer: session.id("customer"),
            payment_intent: session.id("payment_intent"),
            payment,
            buyer: session.object("customer_details").map(Buyer::of),
            receipt_url,
            invoice: Invoice::of(session),
            saved_method: SavedMethod::of(session),
        })
    }
}

impl Stripe {
    /// Reads a session with its payment, charge, invoice and saved method.
    pub async fn checkout(&self, session: &str) -> Result<Checkout, StripeError> {
        let query = EXPANDED.iter().fold(Form::new(), |form, member| form.with("expand[]", member));
        let answered = self.get(&path_of("checkout/sessions", session)?, query).await?;
        Ok(Checkout::of(Members::of(&answered))?)
    }

    /// The newest session of a top-up among those made between two times, in seconds since 1970; it is not expanded. More than
    /// ten thousand sessions before it are [`StripeError::TooMany`].
    pub async fn find_checkout(
        &self,
        topup: &str,
        created: RangeInclusive<i64>,
    ) -> Result<Option<Checkout>, StripeError> {
        let query =
            || Form::new().with_number("created[gte]", *created.start()).with_number("created[lte]", *created.end());
        // The reference alone can be anybody's: whoever has a payment link can write one into its address.
        let pick = |session: Members<'_>| {
            let is_it = session.within("metadata").text(TOPUP).as_deref() == Some(topup);
            Ok(is_it.then(|| Checkout::of(session)).transpose()?)
        };
        self.walk("/v1/checkout/sessions", query, MAX_SESSIONS, pick).await
    }

    /// The session in which a payment intent is paid, by its id; it is not expanded.
    pub async fn checkout_of(&self, payment_intent: &str) -> Result<Option<Checkout>, StripeError> {
        if !is_id(payment_intent) {
            return Err(StripeError::NoId);
        }
        let query = || Form::new().with("payment_intent", payment_intent);
        let pick = |session: Members<'_>| Ok(Some(Checkout::of(session)?));
        self.walk("/v1/checkout/sessions", query, MAX_SESSIONS, pick).await
    }
}
