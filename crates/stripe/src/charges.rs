//! Holds: a charge, which is one attempt of a payment that moved money.

use crate::members::{Members, Missing};

/// What a payment was made with, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// `visa`, `mastercard` and the like; for other methods their type, such as `us_bank_account`.
    pub brand: String,
    /// The last four digits, where there are any.
    pub last4: Option<String>,
}

impl Card {
    /// Of `payment_method_details` or of a payment method: both have a type, and members below its name.
    pub(crate) fn of(method: Members<'_>) -> Option<Self> {
        let kind = method.text("type")?;
        let details = method.within(&kind);
        Some(Self { brand: details.text("brand").unwrap_or(kind), last4: details.text("last4") })
    }
}

/// One charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// `ch_…` or `py_…`.
    pub id: String,
    /// The payment intent that it belongs to.
    pub payment_intent: Option<String>,
    /// Stripe's receipt, for the buyer.
    pub receipt_url: Option<String>,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// What of it was taken.
    pub amount_captured: i64,
    /// What of it was given back, as far as Stripe has counted.
    pub amount_refunded: i64,
    /// In lower case.
    pub currency: String,
    /// Somebody disputes it, or did.
    pub disputed: bool,
    /// What it was made with.
    pub card: Option<Card>,
}

impl Charge {
    pub(crate) fn of(charge: Members<'_>) -> Result<Self, Missing> {
        let amount = charge.needed_integer("amount")?;
        Ok(Self {
            id: charge.needed_text("id")?,
            payment_intent: charge.id("payment_intent"),
            receipt_url: charge.text("receipt_url"),
            amount,
            amount_captured: charge.needed_integer("amount_captured")?,
            amount_refunded: charge.needed_integer("amount_refunded")?,
            currency: charge.currency("currency").ok_or(Missing("currency"))?,
            disputed: charge.flag("disputed").unwrap_or(false),
            card: Card::of(charge.within("payment_method_details")),
        })
    }
}
