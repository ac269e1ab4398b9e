//! Holds: Stripe's calls and signatures, tolerant of what Stripe adds to them. No store, no clock, no ledger.
//!
//! Money is whole cents, as Stripe counts it, and never a float. Members that are not known are passed over, what may be
//! absent, `null`, an id or the object itself is read in each of these forms, and words that are not known become `Other`.
//! Nothing here decides what is credited.

mod charges;
mod checkouts;
mod client;
mod events;
mod failure;
mod form;
mod members;
mod new_checkout;
mod payments;
mod reversals;
mod signature;
mod words;

pub use charges::{Card, Charge};
pub use checkouts::{Address, Buyer, Checkout, CheckoutStatus, Invoice, Mode, PaymentStatus, SavedMethod, TaxId};
pub use client::{API_BASE, BuildError, DEFAULT_TIMEOUT, Options, STRIPE_VERSION, Stripe};
pub use events::{BadEvent, Event, EventKind, EventPage, ListedEvent, Subject};
pub use failure::{Refusal, RefusalKind, StripeError};
pub use new_checkout::{Customer, NewCheckout, NewSetup};
pub use payments::{NewCharge, Payment, PaymentFault, PaymentIntentStatus};
pub use reversals::{BalanceTransaction, Dispute, DisputeStatus, Refund, RefundStatus};
pub use signature::{SignatureError, TOLERANCE_SECONDS, verify};
